#!/bin/sh
# Installs what the tests with a real Docker engine need, from Debian (or a child of it): quick where it is there, without
# a question, and without starting any service. Where it may not install it says nothing; the tests are skipped then.
set -eu

packages=""
need() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || packages="$packages $2"; }
need dockerd docker.io
need docker-registry docker-registry
need iptables iptables
need ip iproute2
need busybox busybox-static
if [ -z "$packages" ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi

# Debian asks this file whether a package may start its service.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086  # A list of words.
{ apt-get -qq update && apt-get -qq --yes install --no-install-recommends $packages; } >"$log" 2>&1 </dev/null || cat "$log" >&2
rm -f "$log"
