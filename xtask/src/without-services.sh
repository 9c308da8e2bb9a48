#!/bin/sh
# without-services.sh POLICY COMMAND...: runs a command during which no package starts a service, also if Ctrl-C ends it.
# invoke-rc.d(8) and deb-systemd-invoke(1) ask POLICY, which is /usr/sbin/policy-rc.d; an administrator's own is left to
# decide.
policy=$1
shift
mark='Put here by the cargo xtask of snigate while it installs packages; at any other time it may be removed.'
if [ ! -e "$policy" ] || grep -qF "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi
"$@"
