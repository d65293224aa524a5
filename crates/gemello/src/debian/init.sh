#!/bin/busybox sh
# gemello's init: process 1 of the guest that `gemello run debian` boots.
#
# /etc/gemello/run, made for each run, sets: mode (shell, command or pipe), errors (with-output or apart), rows, cols,
# TERM, net (known, with address, netmask, gateway and resolver; asked; none), shares (folders of the host's to mount
# below /mnt, each TAG:OPTIONS), and for the last two modes defines the function `command_line`.
#
# ttyS0 is the user's terminal. A command that has pipes has its input, its output and its error at ports of a virtio
# console device, each called after it; a command on a terminal has its error there if that is apart. The kernel's
# messages go to ttyS0 in shell mode, and to ttyS1 in the others. On ttyS1 this script
# also tells gemello "ready" (the lines are set up, send input) and "status N" (the command has ended): see
# crates/gemello/src/debian/report.rs, which reads them. What it hears there is the size of the user's window, "clock"
# where the system's clock has stood still in a saved machine, and "poweroff".

# Process 1 sets the system up, starts the session (this script again, as "session"), and then only takes the signals by
# which busybox's poweroff and reboot speak to an init.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root
umask 022

# Sets the network up. DHCP takes ten times as long as addresses that are known.
network() {
	[ -e /sys/class/net/eth0 ] || return
	case $net in
	known)
		echo "nameserver $resolver" >/etc/resolv.conf
		ifconfig eth0 "$address" netmask "$netmask"
		route add default gw "$gateway"
		;;
	asked)
		ip link set eth0 up
		udhcpc -i eth0 -n -q -f -S -t 3 -T 1 -s /etc/gemello/lease 2>/dev/null
		;;
	none) ip link set eth0 up ;;
	esac
}

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
	ln -s /proc/self/fd /dev/fd
	ln -s fd/0 /dev/stdin
	ln -s fd/1 /dev/stdout
	ln -s fd/2 /dev/stderr
	for driver in /etc/gemello/drivers/*.ko; do
		[ -e "$driver" ] && insmod "$driver"
	done
	hostname gemello
	ip link set lo up 2>/dev/null
	. /etc/gemello/run
	if [ $mode = shell ]; then
		network & # before the first word is typed
	else
		network
	fi
	for share in $shares; do
		mkdir -p "/mnt/${share%%:*}"
		mount -t virtiofs -o "${share#*:}" "${share%%:*}" "/mnt/${share%%:*}"
	done
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
		clock) hwclock -s -u ;;
		*) stty -F /dev/ttyS0 rows "$rows" cols "$cols" ;;
		esac
	done <&5 >/dev/null 3>&- &
}

# Sets port to the device file of the port gemello.$1, which the driver makes when it comes to it.
find_port() {
	while :; do
		for file in /sys/class/virtio-ports/*/name; do
			if [ -e "$file" ] && [ "$(cat "$file")" = "gemello.$1" ]; then
				port=${file%/name}
				port=/dev/${port##*/}
				return
			fi
		done
		usleep 2000
	done
}

# What is written to the pipe /run/$1 goes to the port of that name. Programs may open the pipe again, and the port not.
carry_out() {
	find_port "$1"
	mkfifo "/run/$1"
	dd bs=64k <"/run/$1" >"$port" 2>/dev/null 3>&- &
	carriers="$carriers $!"
	ports="$ports $port"
}

carry_errors() {
	if [ $errors = apart ]; then
		carry_out stderr
	fi
}

# What comes from the port goes to the pipe /run/stdin. The port's end is the pipe's.
carry_in() {
	find_port stdin
	mkfifo /run/stdin
	dd bs=64k <"$port" >/run/stdin 2>/dev/null 3>&- &
	input=$!
}

# Ends what the command has left behind and might still write, until all that was written has been carried out, and the
# host has taken it: then it hangs up.
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
	for port in $ports; do
		cat "$port" >/dev/null
	done
}

carriers= ports=
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
		(command_line) </dev/ttyS0 >/dev/ttyS0 2>/run/stderr 3>&- 5>&-
	else
		(command_line) </dev/ttyS0 >/dev/ttyS0 2>&1 3>&- 5>&-
	fi
	status=$?
	carried_out
	stty -F /dev/ttyS0 sane
	report status $status
	;;
pipe)
	carry_in
	carry_out stdout
	carry_errors
	hear
	report ready
	if [ $errors = apart ]; then
		(command_line) </run/stdin >/run/stdout 2>/run/stderr 3>&- 5>&-
	else
		(command_line) </run/stdin >/run/stdout 2>&1 3>&- 5>&-
	fi
	status=$?
	kill -9 $input 2>/dev/null
	carried_out
	report status $status
	;;
esac
/bin/busybox poweroff -f
