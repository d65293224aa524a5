#!/bin/busybox sh
# gemello's init: process 1 of the guest that `gemello run debian` boots.
#
# /etc/gemello/run, made for each run, sets: mode (shell, command or pipe), errors (with-output or apart), rows, cols,
# TERM, and for the last two modes defines the function `command_line`.
#
# ttyS0 is the user's terminal, or carries the input and output of a command that has pipes; ttyS2 carries the standard
# error that is apart. The kernel's messages go to ttyS0 in shell mode, and to ttyS1 in the others. On ttyS1 this script
# also tells gemello "ready" (the lines are set up, send input) and "status N" (the command has ended): see
# crates/gemello/src/debian/report.rs, which reads them. What it hears there is the size of the user's window, and
# "poweroff".

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
	if [ -e /sys/class/net/eth0 ]; then
		ip link set eth0 up
		udhcpc -i eth0 -n -q -f -S -t 5 -T 1 -s /etc/gemello/lease 2>/dev/null
	fi
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

# Kept open to the end: a closed terminal forgets its settings and drops RTS.
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

# The user's terminal, and its size from now on.
terminal() {
	stty -F /dev/ttyS0 sane crtscts rows "$rows" cols "$cols"
	hear
}

# What gemello says on ttyS1 from now on.
hear() {
	exec 5<>/dev/ttyS1
	stty -F /dev/ttyS1 sane -echo
	while read -r rows cols; do
		case $rows in
		poweroff) /bin/busybox poweroff -f ;;
		*) stty -F /dev/ttyS0 rows "$rows" cols "$cols" ;;
		esac
	done <&5 >/dev/null 3>&- &
}

# Bytes pass through this line unchanged. In: canonical mode, where gemello quotes with ^V and ends with ^D.
transparent() {
	stty -F "$1" raw cs8 -parenb -echo icanon iexten crtscts \
		intr undef quit undef erase undef kill undef eol undef eol2 undef start undef stop undef \
		susp undef rprnt undef werase undef eof ^D lnext ^V
}

# What is written to the pipe /run/$1 goes to the line $2.
carry_out() {
	mkfifo "/run/$1"
	cat <"/run/$1" >"$2" 3>&- &
	carriers="$carriers $!"
}

carry_errors() {
	[ $errors = apart ] || return
	exec 4<>/dev/ttyS2
	transparent /dev/ttyS2
	carry_out err /dev/ttyS2
}

# Ends what the command has left behind and might still write, until all that was written has been carried out.
carried_out() {
	[ "$carriers" ] || return
	while :; do
		sleep 0.2
		read -r self rest </proc/self/stat
		for process in /proc/[0-9]*; do
			case " 1 $$ $self$carriers " in
			*" ${process#/proc/} "*) ;;
			*) kill -9 "${process#/proc/}" 2>/dev/null ;;
			esac
		done
	done &
	wait $carriers
	kill -9 $! 2>/dev/null
	stty -F /dev/ttyS0 -echo
	[ $errors = apart ] && stty -F /dev/ttyS2 -echo
}

carriers=
case $mode in
shell)
	terminal
	printf '\ngemello-init: ready\n' >/dev/ttyS1
	echo "Debian $(uname -r) on gemello. Ctrl-A h helps, poweroff or exit ends."
	setsid -c /bin/sh -i </dev/ttyS0 >/dev/ttyS0 2>&1 3>&- 5>&-
	stty -F /dev/ttyS0 sane
	;;
command)
	terminal
	carry_errors
	report ready
	if [ $errors = apart ]; then
		(command_line) </dev/ttyS0 >/dev/ttyS0 2>/run/err 3>&- 4>&- 5>&-
	else
		(command_line) </dev/ttyS0 >/dev/ttyS0 2>&1 3>&- 5>&-
	fi
	status=$?
	carried_out
	stty -F /dev/ttyS0 sane
	report status $status
	;;
pipe)
	transparent /dev/ttyS0
	mkfifo /run/in
	# Not cat: it uses sendfile, and Linux keeps the pipe locked while that waits for the line, also against a reader that exits.
	dd bs=4k </dev/ttyS0 >/run/in 2>/dev/null 3>&- &
	input=$!
	carry_out out /dev/ttyS0
	carry_errors
	hear
	report ready
	if [ $errors = apart ]; then
		(command_line) </run/in >/run/out 2>/run/err 3>&- 4>&- 5>&-
	else
		(command_line) </run/in >/run/out 2>&1 3>&- 5>&-
	fi
	status=$?
	kill -9 $input 2>/dev/null
	carried_out
	report status $status
	;;
esac
/bin/busybox poweroff -f
