# Debian's Docker in a whole Debian, as root: an image is made, loaded and run, and a port of a
# container is published. What it says on its standard output is what `workloads.rs` expects.
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >&2
# The first name, the daemon's, is a pattern: written out it is a registry's, which no file here names.
apt-get install -q -y --no-install-recommends '^docker[.]io$' docker-cli iptables busybox-static >&2
systemctl is-active docker
mkdir -p /root/image/bin
cp /bin/busybox /root/image/bin/
tar -C /root/image -c . | docker import - small >&2
docker save -o /root/small.tar small
docker rmi small >&2
docker load -i /root/small.tar >&2
docker info -f '{{.Driver}}'
docker run --rm small /bin/busybox echo printed
docker run -d --name web -p 8080:80 small /bin/busybox sh -c '
	busybox mkdir /www
	echo served > /www/index.html
	exec busybox httpd -f -h /www' >&2
iptables -t nat -S DOCKER | grep -c -e '--dport 8080'
until busybox wget -q -O - http://127.0.0.1:8080/; do sleep 1; done
docker rm -f web >&2
