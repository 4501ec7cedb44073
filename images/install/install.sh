#!/bin/sh
# Installs the live system that runs this onto an empty disk, and switches the machine off.
#
# It comes on a CD of its own; the live system's rc.d/pfi finds that CD and runs this before the network is up.  The
# file `settings` beside it says what to do (harness/images/pfi.py writes it).  Every line for the harness begins with
# "dfly-harness install:"; harness/install/dialogue.py waits for them.
#
# Written for /bin/sh of DragonFly 4.6 and later; what differs between releases is found out by looking, not by version.

PATH=/sbin:/bin:/usr/sbin:/usr/bin
export PATH
here=$(dirname "$0")
. "$here/settings"

step=begin
target=/tmp/target

say() {
	echo "dfly-harness install: $*"
}

stage() {
	step=$1
	say "stage $step"
}

# Nobody is there to look at a shell prompt: whatever happens, the machine ends.
finish() {
	sync
	sleep 1
	halt -p
	exit 0
}

die() {
	say "failed at $step: $*"
	finish
}

run() {
	"$@" </dev/null || die "'$*' ended with status $?"
}

# devfs makes nodes some time after the label that describes them was written.
await_node() {
	tries=0
	while ! [ -c "/dev/$1" ]; do
		tries=$((tries + 1))
		[ $tries -le 20 ] || die "no device /dev/$1"
		sleep 1
	done
}

# A directive counts where it stands first, so existing lines are changed in place.
set_directive() {
	file=$1 name=$2 value=$3
	sed -e "s/^#*[[:space:]]*$name[[:space:]].*/$name $value/" "$file" >"$file.new" || die "cannot edit $file"
	grep -q "^$name " "$file.new" || echo "$name $value" >>"$file.new"
	cat "$file.new" >"$file" && rm -f "$file.new" || die "cannot write $file"
}

exec </dev/null
say begin

stage partition
tries=0
while ! [ -c "/dev/$disk" ]; do
	tries=$((tries + 1))
	[ $tries -le 20 ] || die "no disk /dev/$disk; there are: $(sysctl -n kern.disks 2>/dev/null)"
	sleep 1
done
run dd if=/dev/zero of="/dev/$disk" bs=32k count=64
run fdisk -IB "$disk"
await_node "${disk}s1"
run disklabel64 -r -w "${disk}s1" auto
disklabel64 -r "${disk}s1" >/tmp/label </dev/null || die "the new label cannot be read"
case $filesystem in
ufs)
	echo "  a: * * 4.2BSD" >>/tmp/label
	;;
hammer2)
	echo "  a: 1g 0 4.2BSD" >>/tmp/label
	echo "  d: * * HAMMER2" >>/tmp/label
	;;
*)
	die "unknown file system $filesystem"
	;;
esac
run disklabel64 -R -r "${disk}s1" /tmp/label
run disklabel64 -B "${disk}s1"
await_node "${disk}s1a"

stage format
mkdir -p "$target"
run newfs "/dev/${disk}s1a"
if [ "$filesystem" = hammer2 ]; then
	await_node "${disk}s1d"
	run newfs_hammer2 -L ROOT "/dev/${disk}s1d"
	run mount_hammer2 "/dev/${disk}s1d@ROOT" "$target"
	run mkdir -p "$target/boot"
	run mount_ufs "/dev/${disk}s1a" "$target/boot"
	root="hammer2:${disk}s1d@ROOT"
else
	run mount_ufs "/dev/${disk}s1a" "$target"
	root="ufs:${disk}s1a"
fi

stage copy
[ -d /etc.hdd ] || die "there is no /etc.hdd here: not the live system of a release"
# cpdup stays within one file system: devices, processes, this CD and all that lives in memory are left out ...
run cpdup / "$target"
# ... so the folders that were copied into memory when the CD started are taken from there.
for folder in root var usr/local/etc boot; do
	if [ -d "/$folder" ]; then
		run mkdir -p "$target/$folder"
		run cpdup "/$folder" "$target/$folder"
	fi
done
for folder in dev proc mnt tmp var/tmp var/run usr/obj etc; do
	run mkdir -p "$target/$folder"
done
run cpdup /etc.hdd "$target/etc"
rm -rf "$target/etc.hdd"
chmod 1777 "$target/tmp" "$target/var/tmp"
rm -rf "$target/var/run/"* "$target/var/log/"*.[0-9]*

stage configure
{
	echo "# written by dfly-harness"
	echo "vfs.root.mountfrom=\"$root\""
	echo 'console="comconsole"'
	echo 'autoboot_delay="1"'
	echo 'loader_plain="YES"'
} >"$target/boot/loader.conf" || die "cannot write loader.conf"

{
	echo "# written by dfly-harness"
	if [ "$filesystem" = hammer2 ]; then
		echo "${disk}s1d@ROOT	/	hammer2	rw	1	1"
		echo "/dev/${disk}s1a	/boot	ufs	rw	1	1"
	else
		echo "/dev/${disk}s1a	/	ufs	rw	1	1"
	fi
	echo "proc	/proc	procfs	rw	0	0"
} >"$target/etc/fstab" || die "cannot write fstab"

{
	echo "# written by dfly-harness"
	echo 'hostname="dfly"'
	# QEMU's user network gives the same answers every time; asking for them by DHCP only takes longer.
	for interface in vtnet0 em0; do
		echo "ifconfig_$interface=\"inet 10.0.2.15 netmask 255.255.255.0\""
	done
	echo 'defaultrouter="10.0.2.2"'
	echo 'sshd_enable="YES"'
	# A machine for tests is quiet and has no core dumps to keep.
	echo 'dumpdev="NO"'
	echo 'cron_enable="NO"'
	echo 'sendmail_enable="NONE"'
	echo 'rpc_umntall_enable="NO"'
} >>"$target/etc/rc.conf" || die "cannot write rc.conf"

# Nobody logs in with a password, neither over SSH nor on the console; the key's shell is a Bourne shell.
awk -F: -v OFS=: '$1 == "root" || $1 == "toor" { $2 = "*" } $1 == "root" { $10 = "/bin/sh" } $1 != "installer" { print }' \
	"$target/etc/master.passwd" >"$target/etc/master.passwd.new" || die "cannot edit master.passwd"
chmod 600 "$target/etc/master.passwd.new"
run mv "$target/etc/master.passwd.new" "$target/etc/master.passwd"
run pwd_mkdb -p -d "$target/etc" "$target/etc/master.passwd"

config=$target/etc/ssh/sshd_config
[ -f "$config" ] || die "there is no sshd_config"
# PermitRootLogin: the older name of prohibit-password, which every release understands.
set_directive "$config" PermitRootLogin without-password
set_directive "$config" PasswordAuthentication no
set_directive "$config" ChallengeResponseAuthentication no
set_directive "$config" PermitEmptyPasswords no
set_directive "$config" UseDNS no
run mkdir -p -m 700 "$target/root/.ssh"
run cp "$here/authorized_keys" "$target/root/.ssh/authorized_keys"
run chmod 600 "$target/root/.ssh/authorized_keys"
run chmod 700 "$target/root/.ssh"
# Keys that were on the CD would be everybody's.
rm -f "$target/etc/ssh/"ssh_host_*
for type in rsa ecdsa ed25519; do
	run ssh-keygen -q -t $type -N '' -f "$target/etc/ssh/ssh_host_${type}_key"
done

stage unmount
[ "$filesystem" = hammer2 ] && run umount "$target/boot"
run umount "$target"
say complete
finish
