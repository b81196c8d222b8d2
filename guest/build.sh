#!/bin/bash
# Builds the tiny cloud guest: one qcow2 disk that boots by BIOS, made only of Debian packages and the files beside this script.
#
#   guest/build.sh OUT_DIR      makes OUT_DIR/tiny.qcow2 and OUT_DIR/tiny.manifest (the packages inside, with their versions)
#
# Needs no root, no loop device and no kernel module. The image is rebuilt only when a file of this directory changed;
# remove OUT_DIR to build from today's packages. The same packages give the same bytes.
set -euo pipefail

out=${1:?"usage: guest/build.sh OUT_DIR"}
here=$(cd "$(dirname "$0")" && pwd)
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000
PATH=$PATH:/usr/sbin:/sbin

kernel_meta=linux-image-cloud-amd64
packages=(busybox busybox-static dropbear-bin openssh-sftp-server curl socat util-linux e2fsprogs)
programs=(
  /bin/busybox /usr/sbin/dropbear /usr/bin/dropbearkey /usr/lib/openssh/sftp-server /usr/bin/curl /usr/bin/socat
  /bin/lsblk /sbin/blkid /sbin/mke2fs /sbin/e2fsck
)
# Loaded before the root is mounted, in this order; a kernel without one of them cannot boot anywhere we care for.
early_modules=(virtio_pci virtio_blk virtio_scsi sd_mod)
late_modules=(virtio_net virtio_rng virtio_console button evdev isofs vfat nls_cp437 nls_ascii nls_iso8859_1 pvpanic_pci pvpanic_mmio)
cmdline="console=tty0 console=ttyS0,115200 net.ifnames=0 no_timer_check mitigations=off panic=10"
root_mib=80
disk_id=d20e0001
root_label=guest-root # guest/initramfs/init looks for it

say() { echo "guest image: $*" >&2; }
die() { say "$*"; exit 1; }

mkdir -p "$out"
out=$(cd "$out" && pwd)
sources=$(cd "$here" && find build.sh initramfs rootfs -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [ -s "$out/tiny.qcow2" ] && [ "$(cat "$out/tiny.sources" 2>/dev/null)" = "$sources" ]; then
  say "$out/tiny.qcow2 is up to date."
  exit 0
fi
for tool in apt-get apt-cache dpkg-deb depmod cpio lz4 sfdisk mkfs.vfat mcopy syslinux mke2fs debugfs qemu-img; do
  command -v "$tool" >/dev/null || die "$tool is missing; run scripts/install-deps."
done

# One build at a time; a second one waits, then finds the image up to date.
exec 9>"$out/lock"
if ! flock -n 9; then
  flock -w 600 9 || die "another build holds $out/lock for 10 minutes; end it and try again."
  exec "$0" "$out"
fi
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
debs=$out/debs tree=$work/debian root=$work/root early=$work/early
mkdir -p "$debs" "$tree" "$root" "$early"

# --- Debian packages ---------------------------------------------------------------------------------------------------

kernel=$(apt-cache depends "$kernel_meta" | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -1)
[ -n "$kernel" ] || die "no package $kernel_meta is known to apt; run apt-get update."
# Of what the programs depend on, only shared libraries are of use here: busybox is the rest of the system.
mapfile -t libraries < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
  --no-enhances "${packages[@]}" | grep -E '^(lib[a-z0-9.+-]+|zlib1g)$' | grep -vE '^lib(pam|perl|debconf|text)' | sort -u)
get_debs() { (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "${@:2}" "$kernel" "${packages[@]}" "${libraries[@]}"); }
# Asked in an empty directory, because apt names only what is not there yet.
list_debs() { get_debs "$tree" --print-uris | awk '{print $2}' | sort; }
list_debs > "$work/debs"
say "getting $(wc -l < "$work/debs") packages"
if ! get_debs "$debs" 2> "$work/apt.log"; then
  # The lists may name versions that the mirror has replaced.
  apt-get -qq update || true
  list_debs > "$work/debs"
  get_debs "$debs" || die "packages could not be downloaded: $(tail -1 "$work/apt.log") Check the network and /etc/apt/sources.list."
fi
: > "$work/manifest"
while read -r deb; do
  case $deb in
    busybox-static_*) dpkg-deb -x "$debs/$deb" "$work/static" ;; # for the early root, which has no libraries
    *) dpkg-deb -x "$debs/$deb" "$tree" ;;
  esac
  dpkg-deb -f "$debs/$deb" Package Version | awk '{print $2}' | paste -sd' ' >> "$work/manifest"
done < "$work/debs"
version=$(basename "$tree"/boot/vmlinuz-*) version=${version#vmlinuz-}

# --- root tree ---------------------------------------------------------------------------------------------------------

mkdir -p "$root"/{bin,lib,lib64,etc/dropbear,proc,sys,dev,run,tmp,mnt,root,usr,var/lib/guest,var/log}
for name in sbin usr/bin usr/sbin; do mkdir -p "$(dirname "$root/$name")"; done
ln -s bin "$root/sbin"; ln -s ../bin "$root/usr/bin"; ln -s ../bin "$root/usr/sbin"; ln -s ../lib "$root/usr/lib"; ln -s ../run "$root/var/run"
# The guest's own loader tells what a program needs, so nothing of the building machine gets in.
loader=$tree/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
search=$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu
for applet in $("$loader" --library-path "$search" "$tree/bin/busybox" --list); do ln -s busybox "$root/bin/$applet"; done
for program in "${programs[@]}"; do
  file=$tree$program
  [ -e "$file" ] || file=$tree/usr$program
  case $program in
    */sftp-server) target=$root/lib/sftp-server ;; # where Debian's dropbear looks
    *) target=$root/bin/$(basename "$program") ;;
  esac
  mkdir -p "$(dirname "$target")"
  rm -f "$target"
  cp -L "$file" "$target"
  needed=$("$loader" --library-path "$search" --list "$file")
  case $needed in *"not found"*) die "$program lacks a library: $(grep 'not found' <<< "$needed" | head -1)" ;; esac
  awk '$2 == "=>" && $3 ~ /^\// {print $3}' <<< "$needed" | while read -r library; do cp -nL "$library" "$root/lib/"; done
done
cp -L "$loader" "$root/lib64/"
for fs in ext2 ext3 ext4; do ln -sf mke2fs "$root/bin/mkfs.$fs"; done
cp "$tree/etc/mke2fs.conf" "$root/etc/"
for file in $(cd "$here/rootfs" && find . -type f); do
  target=$root/$file
  mkdir -p "$(dirname "$target")"
  rm -f "$target"
  cp "$here/rootfs/$file" "$target"
done
echo "$kernel" > "$root/etc/guest-release"
chmod 600 "$root/etc/shadow"

# --- kernel modules ----------------------------------------------------------------------------------------------------

modules=$root/lib/modules/$version
mkdir -p "$modules"
depmod -b "$tree" "$version"
copy_module() { # with all it depends on, into the root's module tree; prints their paths, dependencies first
  local line file
  line=$(grep -E "/${1//_/[-_]}\.ko:" "$tree/lib/modules/$version/modules.dep") || {
    grep -qE "/${1//_/[-_]}\.ko$" "$tree/lib/modules/$version/modules.builtin" && return
    die "the kernel $version has no module $1."
  }
  for file in $(tr -d : <<< "$line" | tr ' ' '\n' | tac); do
    mkdir -p "$modules/$(dirname "$file")"
    cp "$tree/lib/modules/$version/$file" "$modules/$file"
    echo "$file"
  done
}
for module in "${early_modules[@]}"; do copy_module "$module"; done | awk '!seen[$0]++' > "$work/early_modules"
for module in "${late_modules[@]}"; do copy_module "$module"; echo "$module" >> "$root/etc/modules"; done > /dev/null
cp "$tree/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$modules/"
depmod -b "$root" "$version"

# --- early root: finds the disk, then hands over --------------------------------------------------------------------------

mkdir -p "$early"/{bin,lib/modules,proc,sys,dev,root}
cp "$work/static/bin/busybox" "$early/bin/"
cp "$here/initramfs/init" "$early/init"
chmod 755 "$early/init"
while read -r file; do
  cp "$modules/$file" "$early/lib/modules/"
  basename "$file" >> "$early/lib/modules/order"
done < "$work/early_modules"
find "$early" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$early" && find . -print0 | sort -z | cpio --null -o -H newc -R 0:0 --reproducible --quiet) | lz4 -l -9 -c > "$work/initrd"

# --- disk: MBR, FAT with syslinux and kernel, ext4 root ---------------------------------------------------------------------

# debugfs and not `mke2fs -d`, because that copies change times, owners and directory order of this machine.
populate() {
  cd "$root"
  find . -mindepth 1 -printf '%P\t%y\t%m\t%l\n' | sort | while IFS=$'\t' read -r path type mode target; do
    case $type in
      d) printf 'mkdir "/%s"\nsif "/%s" mode 04%04d\n' "$path" "$path" "$mode" ;;
      l) printf 'symlink "/%s" "%s"\n' "$path" "$target" ;;
      f) printf 'write "%s" "/%s"\n' "$root/$path" "$path" ;;
      *) die "$path is of a type that the image does not carry." ;;
    esac
  done
}
find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -path '*/etc/shadow' -prune -o -type f -exec chmod u=rwX,go=rX {} +
chmod 700 "$root/root"
chmod 1777 "$root/tmp"
truncate -s "${root_mib}M" "$work/root.ext4"
mke2fs -q -t ext4 -m 0 -L "$root_label" -U "${disk_id}-0000-4000-8000-000000000001" \
  -E "root_owner=0:0,hash_seed=${disk_id}-0000-4000-8000-000000000002,lazy_itable_init=0" "$work/root.ext4"
populate > "$work/populate"
debugfs -w -f "$work/populate" "$work/root.ext4" > "$work/debugfs.log" 2>&1
if grep -vE '^debugfs( |:)|^Allocated inode' "$work/debugfs.log" >&2; then die "the root file system could not be filled; see above."; fi
e2fsck -fn "$work/root.ext4" > "$work/e2fsck.log" 2>&1 || die "the root file system is damaged: $(tail -1 "$work/e2fsck.log")"

boot_kib=$(( ($(stat -c %s "$tree/boot/vmlinuz-$version") + $(stat -c %s "$work/initrd")) / 1024 + 1024 ))
boot_sectors=$(( (boot_kib + 1023) / 1024 * 2048 )) boot_at=2048
root_sectors=$(( root_mib * 2048 )) root_at=$(( boot_at + boot_sectors ))
disk=$work/disk.raw
truncate -s $(( (root_at + root_sectors) * 512 )) "$disk"
sfdisk -q "$disk" <<EOT
label: dos
label-id: 0x$disk_id
start=$boot_at,size=$boot_sectors,type=c,bootable
start=$root_at,size=$root_sectors,type=83
EOT
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
mkfs.vfat --invariant -i "$disk_id" -n GUESTBOOT --offset "$boot_at" "$disk" "$((boot_sectors / 2))" 2>&1 > /dev/null | grep -v '^Warning: block count mismatch' >&2 || true
cat > "$work/syslinux.cfg" <<EOT
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd
  APPEND $cmdline
EOT
export MTOOLS_SKIP_CHECK=1
fat="$disk@@$((boot_at * 512))"
mcopy -i "$fat" "$tree/boot/vmlinuz-$version" ::/vmlinuz
mcopy -i "$fat" "$work/initrd" ::/initrd
mcopy -i "$fat" "$work/syslinux.cfg" ::/syslinux.cfg
syslinux --install --offset $((boot_at * 512)) "$disk"
dd if="$work/root.ext4" of="$disk" bs=1M oflag=seek_bytes seek=$((root_at * 512)) conv=notrunc,sparse status=none

qemu-img convert -f raw -O qcow2 -c "$disk" "$work/tiny.qcow2"
mv "$work/manifest" "$out/tiny.manifest"
mv "$work/tiny.qcow2" "$out/tiny.qcow2"
echo "$sources" > "$out/tiny.sources"
say "$out/tiny.qcow2 is built: $(($(stat -c %s "$out/tiny.qcow2") / 1048576)) MiB, kernel $version."
