#!/bin/sh
# Makes a running DragonFly system ours: root's SSH key is the one given, and nobody logs in with a password any more.
# Run as root: adopt.sh 'ssh-ed25519 AAAA... comment'

PATH=/sbin:/bin:/usr/sbin:/usr/bin
export PATH
key=$1

die() {
	echo "$*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || die "not root"
[ -n "$key" ] || die "no key given"

umask 077
mkdir -p /root/.ssh && chmod 700 /root/.ssh || die "cannot make /root/.ssh"
echo "$key" >/root/.ssh/authorized_keys || die "cannot write /root/.ssh/authorized_keys"
chmod 600 /root/.ssh/authorized_keys

# A directive counts where it stands first, so existing lines are changed in place.
config=/etc/ssh/sshd_config
[ -f $config ] || die "there is no $config"
set_directive() {
	sed -e "s/^#*[[:space:]]*$1[[:space:]].*/$1 $2/" $config >$config.new || die "cannot edit $config"
	grep -q "^$1 " $config.new || echo "$1 $2" >>$config.new
	cat $config.new >$config && rm -f $config.new || die "cannot write $config"
}
set_directive PermitRootLogin without-password
set_directive PubkeyAuthentication yes
set_directive PasswordAuthentication no
set_directive ChallengeResponseAuthentication no
set_directive PermitEmptyPasswords no
set_directive UseDNS no
# Nor on the console: whatever password the maker left, it opens nothing any more.
accounts=/etc/master.passwd
awk -F: -v OFS=: 'NF == 10 && !/^#/ { $2 = "*" } { print }' $accounts >$accounts.new || die "cannot edit $accounts"
chmod 600 $accounts.new
pwd_mkdb -p $accounts.new || die "the passwords cannot be taken away"
# Commands that come over SSH are written for a Bourne shell.
case $(awk -F: '$1 == "root" { print $NF }' /etc/passwd) in
*/sh) ;;
*) pw usermod root -s /bin/sh || die "root's shell cannot be changed" ;;
esac
[ -x /usr/libexec/sftp-server ] || grep -q internal-sftp $config || die "there is no sftp-server"
if [ -f /etc/rc.conf ] && ! grep -qi '^sshd_enable="*yes' /etc/rc.conf; then
	echo 'sshd_enable="YES"' >>/etc/rc.conf
fi
sync
