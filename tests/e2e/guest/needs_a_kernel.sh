# What sandboxes without a kernel of their own fail at, as root in a whole Debian. Each line says
# whether a step worked, and its last words where it did not.
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >&2
apt-get install -q -y --no-install-recommends iptables nftables gcc libc6-dev gdb strace bindfs fuse3 \
	linux-perf >&2
cd /root

loop() {
	truncate -s 32M loop.img
	mkfs.ext4 -q loop.img
	mkdir -p /mnt/loop
	mount -o loop loop.img /mnt/loop
	echo kept > /mnt/loop/file
	umount /mnt/loop
	e2fsck -fn loop.img
}

block_device() {
	modprobe brd rd_nr=1 rd_size=32768
	mkfs.ext4 -q /dev/ram0
	mkdir -p /mnt/ram
	mount /dev/ram0 /mnt/ram
	umount /mnt/ram
}

overlay() {
	mkdir -p /mnt/layers /mnt/over
	mount -t tmpfs tmpfs /mnt/layers
	mkdir /mnt/layers/lower /mnt/layers/upper /mnt/layers/work
	echo below > /mnt/layers/lower/file
	mount -t overlay -o lowerdir=/mnt/layers/lower,upperdir=/mnt/layers/upper,workdir=/mnt/layers/work \
		overlay /mnt/over
	grep below /mnt/over/file
	umount /mnt/over /mnt/layers
}

fuse() {
	mkdir -p /mnt/fuse source
	echo through > source/file
	bindfs source /mnt/fuse
	grep through /mnt/fuse/file
	fusermount3 -u /mnt/fuse
}

module() {
	modprobe dummy
	ip link add dummy9 type dummy
	ip link set dummy9 up
	ip link del dummy9
}

namespaces() {
	ip netns add other
	ip link add veth8 type veth peer name veth9 netns other
	ip addr add 10.77.0.1/24 dev veth8
	ip link set veth8 up
	ip -n other addr add 10.77.0.2/24 dev veth9
	ip -n other link set veth9 up
	ping -c 1 -w 30 10.77.0.2
	ip netns del other
}

tap() {
	ip tuntap add tap9 mode tap
	ip link del tap9
}

iptables_nat() {
	iptables -t nat -L
	iptables -t nat -A POSTROUTING -s 10.78.0.0/24 -j MASQUERADE
	iptables -t nat -D POSTROUTING -s 10.78.0.0/24 -j MASQUERADE
}

nftables() {
	nft add table inet test
	nft add chain inet test input '{ type filter hook input priority 0; }'
	nft add rule inet test input ct state established counter accept
	nft delete table inet test
}

user_namespace() {
	setpriv --reuid=65534 --regid=65534 --clear-groups unshare -Urn sh -c 'test $(id -u) = 0 && ip link'
}

# Loads a program that the kernel verifies, and has it look at a packet.
ebpf() {
	cat > load.c <<'C'
#include <linux/bpf.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
	struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr load;
	memset(&load, 0, sizeof load);
	load.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	load.insns = (unsigned long)program;
	load.insn_cnt = 2;
	load.license = (unsigned long)"GPL";
	int loaded = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load), pair[2];
	char first[] = "packet", heard[sizeof first];
	if (loaded < 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
		return 1;
	if (setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_BPF, &loaded, sizeof loaded))
		return 2;
	/* The program lets one byte of each packet through. */
	return write(pair[0], first, sizeof first) < 0 || read(pair[1], heard, sizeof heard) != 1;
}
C
	gcc -o load load.c
	./load
}

# systemd attaches a program of the kind that looks at packets to the service's group.
denied_addresses() {
	systemd-run --wait -q ping -c 1 -w 30 127.0.0.1
	if systemd-run --wait -q -p IPAddressDeny=any ping -c 1 -w 3 127.0.0.1; then return 1; fi
}

limits() {
	systemd-run --wait -q -p MemoryMax=64M -p TasksMax=5 -p CPUQuota=50% true
	if systemd-run --wait -q -p MemoryMax=16M -p MemorySwapMax=0 sh -c \
		'head -c 64M /dev/zero | tail -c 64M > /dev/null'; then
		return 1
	fi
}

traced() {
	strace -f -o trace sh -c '/bin/true; :'
	grep execve trace
}

debugged() {
	cat > debug.c <<'C'
int total;
int twice(int n) { total = 2 * n; return total; }
int main(void) { return twice(21); }
C
	gcc -g -o debug debug.c
	gdb -q -batch -ex 'break twice' -ex run -ex 'print n' -ex 'watch total' -ex continue ./debug > session
	grep -F '$1 = 21' session
	grep 'Hardware watchpoint' session
	grep 'New value = 42' session
}

counted() {
	perf stat -e task-clock,page-faults true
}

for step in loop block_device overlay fuse module namespaces tap iptables_nat nftables user_namespace \
	ebpf denied_addresses limits traced debugged counted; do
	(set -e; $step) > words 2>&1 </dev/null &
	if wait $!; then echo "$step: works"; else echo "$step: $(tail -n 3 words | tr '\n' ' ')"; fi
done
