# The second stage of a Debian system whose packages are unpacked: as root, in a guest whose root is
# its disk. Arguments: the kernel's version, then the packages that others take for granted.
set -e
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
umask 022
cd /
kernel=$1
shift
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock

# No service is started here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

before_unpacking() {
	package=${1##*/}
	package=${package%.preinst}
	DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=${package%:*} \
		DPKG_MAINTSCRIPT_ARCH=amd64 DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 \
		DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT='' "$1" install
}

# What every script may use comes first; what dpkg warns of then is in order.
first='base-passwd base-files libc6 perl-base mawk debconf'
dpkg='dpkg --force-unsafe-io --force-confold'
script=/var/lib/dpkg/info/base-passwd.preinst
[ ! -x $script ] || before_unpacking $script
$dpkg --force-depends --no-triggers --configure $first
for script in /var/lib/dpkg/info/*.preinst; do
	before_unpacking "$script"
done
others=
for package; do
	case " $first " in
	*" $package "*) ;;
	*) others="$others $package" ;;
	esac
done
$dpkg --force-depends --no-triggers --configure $others
$dpkg --configure -a
[ -z "$(dpkg --audit)" ]

depmod "$kernel"

# Packages start their services where there is an init; a command runs without one.
cat >/usr/sbin/policy-rc.d <<'END'
#!/bin/sh
# Without systemd as process 1, as in `gemello run debian -- CMD`, packages start no services.
[ -d /run/systemd/system ] || exit 101
END

# What is each machine's own, and what can be made again.
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
: >/etc/machine-id
rm -f /var/lib/systemd/random-seed /var/cache/apt/*.bin /var/cache/debconf/*-old
rm -f /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache
find /var/log -type f -exec truncate -s 0 {} +

# The packages have done what a first boot does: by these marks systemd sees it. Bookworm's has none.
done=/usr/lib/systemd/systemd-update-done
[ ! -x $done ] || $done
umount -l /run
