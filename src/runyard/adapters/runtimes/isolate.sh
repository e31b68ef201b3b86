#!/bin/sh
# isolate.sh MOUNTS UID PROCESSES FILES CWD ENV COMMAND...
#
# Become COMMAND as user UID in the namespaces that unshare has just made (isolation.py has the theory). Standard error
# leads to the platform until the last line, standard output is the command's; nothing of the user's has a say before
# the privileges are gone, least of all the user's environment.
set -eu
mounts=$1 uid=$2 processes=$3 files=$4 cwd=$5 env=$6
shift 6

# The first child is PID 1 of the new namespace, and whatever runs in there dies with it. It dies with its parent, which
# is this shell and then the `timeout` that it becomes. SIGCHLD is ignored, so orphans are reaped by the kernel; dash
# cannot ignore that one for others, so env does.
setpriv --pdeathsig KILL env --ignore-signal=CHLD sleep infinity </dev/null >/dev/null 2>&1 &
init=$!

# It holds keys and secrets, which must not lie on disk for as long as the worker lives.
exec 3<"$env"
rm "$env"

mount -a -T "$mounts"
cd "$cwd"
unset OLDPWD
ulimit -c 0
ulimit -n "$files"
# bash says -u, dash says -p.
ulimit -u "$processes" 2>/dev/null || ulimit -p "$processes"

echo "ready $init" >&2
# `timeout 0` has no time limit; it is here to end exactly as its child ends, by code or by signal, and to pass SIGTERM
# on to the child alone.
exec timeout --foreground 0 \
  setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
  sh -c '. /dev/fd/3 && exec "$@" 3<&-' sh "$@" 2>&1
