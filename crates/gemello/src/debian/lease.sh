#!/bin/busybox sh
# udhcpc calls this with what has happened, and the lease in variables.

case $1 in
bound | renew)
	ip addr flush dev "$interface"
	ip addr add "$ip/$mask" broadcast + dev "$interface"
	for gateway in $router; do
		ip route add default via "$gateway" dev "$interface"
	done
	for resolver in $dns; do
		echo "nameserver $resolver"
	done >/etc/resolv.conf
	;;
esac
