"""The Debian package: what is in it, that systemd takes its unit, and that its program runs. `tests/run package`."""
import glob
import os
import subprocess
import tempfile
from lib import DROVER, run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILES = {
    "/usr/bin/drover": 0o755,
    "/usr/lib/drover/on-stop": 0o755,
    "/lib/systemd/system/drover.service": 0o644,
    "/etc/default/drover": 0o644,
    "/usr/share/bash-completion/completions/drover": 0o644,
    "/usr/share/man/man8/drover.8.gz": 0o644,
    "/usr/share/doc/drover/operations.md": 0o644,
    "/usr/share/doc/drover/README.Debian": 0o644,
    "/usr/share/doc/drover/copyright": 0o644,
}


def test_the_package_is_whole_and_its_program_runs():
    with tempfile.TemporaryDirectory() as at:
        package = run("env", "DEB_COMPRESSION=none", f"{ROOT}/scripts/deb", DROVER, at).strip()
        root = f"{at}/root"
        run("dpkg-deb", "-x", package, root)
        run("dpkg-deb", "-e", package, f"{at}/control")
        found = {f"{d.removeprefix(root)}/{f}": os.stat(f"{d}/{f}").st_mode & 0o777 for d, _, names in os.walk(root) for f in names}
        assert found == FILES, found
        run("md5sum", "--quiet", "-c", f"{at}/control/md5sums", cwd=root)
        fields = dict(line.split(": ", 1) for line in run("dpkg-deb", "-f", package).splitlines() if not line.startswith(" "))
        version = run(f"{root}/usr/bin/drover", "--version").split()[1]
        assert (fields["Package"], fields["Version"]) == ("drover", version), fields
        depends = run("dpkg-deb", "-f", package, "Depends")
        with open(f"{ROOT}/scripts/install-deps") as f:
            engines = next(line for line in f if "etcd-server" in line)
        missing = [name for name in ("qemu-utils", "ovn-host", "haproxy", "keepalived", "etcd-server", "etcd-client") if name not in depends]
        assert not missing and "etcd-client" in engines, missing
        for script in glob.glob(f"{at}/control/p*") + [f"{root}/usr/lib/drover/on-stop"]:
            run("sh", "-n", script)
            assert os.access(script, os.X_OK), script
        # Where no systemd runs they touch nothing, also when they run again.
        for name, word in (("preinst", "install"), ("postinst", "configure"), ("postinst", "configure"), ("prerm", "remove"), ("postrm", "remove")):
            run(f"{at}/control/{name}", word)
        run("bash", "-n", f"{root}/usr/share/bash-completion/completions/drover")
        page = run("man", "-l", f"{root}/usr/share/man/man8/drover.8.gz") if os.path.exists("/usr/bin/man") else run("zcat", f"{root}/usr/share/man/man8/drover.8.gz")
        assert "backup" in page and "doctor" in page


def complete(root, *words):
    """What bash offers behind these words."""
    line = " ".join(f"'{w}'" for w in words)
    script = f"source '{root}/packaging/drover.bash'; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _drover; echo \"${{COMPREPLY[@]}}\""
    path = f"{os.path.dirname(DROVER)}:{os.environ['PATH']}"
    return subprocess.run(["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=30).stdout.split()


def test_bash_completes_what_the_program_knows():
    assert complete(ROOT, "drover", "doc") == ["doctor"]
    assert "verify" in complete(ROOT, "drover", "backup", "")
    assert "--address" in complete(ROOT, "drover", "--state", "/x", "server", "--add")


def test_systemd_takes_the_unit():
    if not os.path.exists("/usr/bin/systemd-analyze"):
        return
    with tempfile.TemporaryDirectory() as at:
        with open(f"{ROOT}/packaging/drover.service") as f:
            unit = f.read()
        # The programs are where the package puts them, which is not here.
        unit = unit.replace("/usr/bin/drover", DROVER).replace("/usr/lib/drover/on-stop", f"{ROOT}/packaging/on-stop")
        with open(f"{at}/drover.service", "w") as f:
            f.write(unit)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", f"{at}/drover.service"], capture_output=True, text=True, timeout=60)
        said = [line for line in done.stderr.splitlines() if "drover.service" in line]
        assert done.returncode == 0 and not said, done
