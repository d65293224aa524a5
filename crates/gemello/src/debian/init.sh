#!/bin/busybox sh
# gemello's init: process 1 of the guest that `gemello run debian` boots.
#
# /etc/gemello/run, made for each run, sets: mode (shell, command or pipe), rows, cols, TERM, and for the last two
# modes defines the function `command_line`.
#
# ttyS0 is the user's terminal or the command's input and output; the kernel's messages go there too in shell mode,
# and to ttyS1 in the others. On ttyS1 this script also tells gemello "ready" (the terminal is set up, send input) and
# "status N" (the command has ended): see crates/gemello/src/debian/report.rs, which reads them.

# Process 1 sets the system up, starts the session (this script again, as "session"), and then only takes the signals by
# which busybox's poweroff and reboot speak to an init.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root
umask 022

if [ "$1" != session ]; then
	/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /usr/bin /usr/sbin /usr/local/bin /sbin
	/bin/busybox mount -t proc -o nosuid,nodev,noexec proc /proc
	/bin/busybox mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
	/bin/busybox mount -t devtmpfs -o mode=0755,nosuid devtmpfs /dev
	/bin/busybox --install -s
	mkdir -p /dev/pts /dev/shm
	mount -t devpts -o mode=0620,gid=5,ptmxmode=0666 devpts /dev/pts
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm
	mount -t tmpfs -o mode=1777 tmpfs /tmp
	mount -t tmpfs -o mode=0755 tmpfs /run
	[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
	for driver in /etc/gemello/drivers/*.ko; do
		[ -e "$driver" ] && insmod "$driver"
	done
	hostname gemello
	ip link set lo up 2>/dev/null
	trap '/bin/busybox poweroff -f' USR1 USR2
	trap '/bin/busybox reboot -f' TERM
	# Not with "&", which would make the session ignore ^C.
	start-stop-daemon -S -b -p /run/no-pid -a /bin/busybox -- sh /init session
	while :; do
		sleep 100000 &
		wait $!
	done
fi

exec >/dev/console 2>&1
cd /root

. /etc/gemello/run
export TERM

# Kept open to the end: a closed terminal forgets its size and drops RTS.
exec 3<>/dev/ttyS0

export ENV=/etc/profile

# Tells gemello, and keeps the kernel's messages from splitting the line.
report() {
	read -r level rest </proc/sys/kernel/printk
	dmesg -n 1
	printf '\ngemello-init: %s\n' "$*" >/dev/ttyS1
	stty -F /dev/ttyS1 -echo # sets the attributes after the output has drained
	dmesg -n "$level"
}

case $mode in
shell)
	stty -F /dev/ttyS0 sane crtscts rows "$rows" cols "$cols"
	echo "Debian $(uname -r) on gemello. Ctrl-A h helps, poweroff or exit ends."
	setsid -c /bin/sh -i </dev/ttyS0 >/dev/ttyS0 2>&1 3>&-
	stty -F /dev/ttyS0 sane
	;;
command)
	stty -F /dev/ttyS0 sane crtscts rows "$rows" cols "$cols"
	report ready
	command_line </dev/ttyS0 >/dev/ttyS0 2>&1 3>&-
	status=$?
	stty -F /dev/ttyS0 sane
	report status $status
	;;
pipe)
	# Bytes pass both ways unchanged. In: canonical mode, where gemello quotes with ^V and ends with ^D.
	stty -F /dev/ttyS0 raw cs8 -parenb -echo icanon iexten crtscts \
		intr undef quit undef erase undef kill undef eol undef eol2 undef start undef stop undef \
		susp undef rprnt undef werase undef eof ^D lnext ^V
	report ready
	command_line </dev/ttyS0 >/dev/ttyS0 2>&1 3>&-
	status=$?
	stty -F /dev/ttyS0 -echo
	report status $status
	;;
esac
/bin/busybox poweroff -f
