"""The `openstack` command inside this process, as its interactive mode runs it: a call costs milliseconds instead of seconds.

Every command that ran is remembered, so that the sweep can tell which ones nobody tried."""
import contextlib
import io
import json
import logging
import os
import shlex
import subprocess
import sys
from lib import endpoint
from openstackclient.shell import OpenStackShell
from osc_lib.clientmanager import ClientCache, ClientManager

ADMIN = "drover-admin"
LATEST = "2.latest"
NEWEST = "3.70"
tried = set()
said = []
shells = {}
handles = {}
holder = [None]


class Refused(AssertionError):
    """The command failed."""


class Terminal(io.StringIO):
    """Nobody types, but somebody might: the client reads no data from here."""

    def isatty(self):
        return True


def shell(cloud, compute=None, options=()):
    key = (cloud, compute, options)
    if key not in shells:
        made = OpenStackShell()
        hold(made)
        argv = [*(["--os-cloud", cloud] if cloud else []), *options, *(["--os-compute-api-version", compute] if compute else [])]
        made.stdout = io.StringIO()
        # Any command makes the shell log in and load its commands.
        with contextlib.redirect_stderr(io.StringIO()):
            assert made.run([*argv, "module", "list"]) == 0
        shells[key] = made
    hold(shells[key])
    return shells[key]


def hold(program):
    """The client keeps its connections on the class; each shell gets its own."""
    for name, cache in vars(ClientManager).items():
        if isinstance(cache, ClientCache):
            handles.setdefault(holder[0], {})[name] = cache._handle
            cache._handle = handles.get(program, {}).get(name)
    holder[0] = program


def login(kind, **options):
    """Options of a login of its own, without a cloud of clouds.yaml; the next command with them logs in anew."""
    made = ["--os-auth-type", kind, "--os-auth-url", f"{endpoint()}/identity/v3", "--os-region-name", "RegionOne"]
    for key, value in options.items():
        made += [f"--os-{key.replace('_', '-')}", value]
    shells.pop((None, None, tuple(made)), None)
    return tuple(made)


def run(line, cloud="drover", compute=None, placement=None, volume=None, options=()):
    """Runs one command line, quoted as in a shell, and gives its output; `said` holds what went to stderr."""
    argv = shlex.split(line)
    cloud = None if options else cloud
    if placement:
        options = ("--os-placement-api-version", placement)
    if volume:
        options = ("--os-volume-api-version", volume)
    program = shell(cloud, compute, tuple(options))
    out, log = io.StringIO(), io.StringIO()
    program.stdout, program.stderr = out, log
    handler = logging.StreamHandler(log)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    stdin, sys.stdin = sys.stdin, Terminal()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(log):
            try:
                code = program.run_subcommand(list(argv))
            except SystemExit as e:
                code = e.code
    finally:
        sys.stdin = stdin
        logging.getLogger().removeHandler(handler)
    tried.add(command_of(program, argv))
    if code:
        raise Refused(f"openstack {line}\n  ended with {code}: {log.getvalue().strip()[-2000:]}")
    said.clear()
    said.append(log.getvalue())
    return out.getvalue()


def command_of(program, argv):
    return program.command_manager.find_command(argv)[1]


def js(line, cloud="drover", **options):
    return json.loads(run(f"{line} -f json", cloud, **options))


def admin(line, **options):
    return run(line, ADMIN, **options)


def ajs(line, **options):
    return js(line, ADMIN, **options)


def refused(line, text, cloud="drover", **options):
    """The command fails, and its message says `text`."""
    try:
        run(line, cloud, **options)
    except Refused as e:
        assert text.lower() in str(e).lower(), f"{e}\nwithout: {text}"
        return
    raise AssertionError(f"openstack {line}\nwas not refused")


def column(line, name="Name", cloud="drover", **options):
    return [row[name] for row in js(line, cloud, **options)]


def shows(line, cloud="drover", compute=None, volume=None, **wanted):
    """`show` says what was set. `None` also means that it is absent or empty."""
    got = js(line, cloud, compute=compute, volume=volume)
    known = {key.lower().replace(" ", "_").replace(":", "__").replace("-", "_"): value for key, value in got.items()}
    for key, value in wanted.items():
        assert key in known, f"openstack {line} shows no {key}: {sorted(known)}"
        seen = known[key]
        assert seen == value or (value is None and not seen), f"openstack {line}: {key} is {seen!r}, not {value!r}"
    return got


def whole(*argv, cloud="drover", timeout=120):
    """The command as a process of its own, for what ends in another program."""
    done = subprocess.run(["openstack", "--os-cloud", cloud, *argv], capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise Refused(f"openstack {' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
    tried.add(command_of(shell(cloud), list(argv)))
    return done.stdout


@contextlib.contextmanager
def undone(*lines, cloud=ADMIN, **options):
    """Runs `lines` after the block, whatever happened; what is gone already is no error."""
    try:
        yield
    finally:
        for line in lines:
            with contextlib.suppress(Refused):
                run(line, cloud, **options)


def every_command(*groups):
    program = shell("drover")
    with contextlib.redirect_stdout(io.StringIO()):
        listed = js("command list")
    names = {}
    for group in listed:
        commands = group["Commands"]
        names[group["Command Group"]] = commands if isinstance(commands, list) else commands.split()
    return {command for group in groups for command in names[group]}, program
