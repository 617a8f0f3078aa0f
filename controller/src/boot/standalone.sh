# Unpacks the boot script and runs it: no sidecar, and nobody to talk to but ClearML.
# The shim measures the agent's idle time by itself and ends the machine at the limit.
umask 077
export PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
shutdown -P "+$MAX_SPIN_UP_MIN"

BOOT="${CLEARML_AUTOSCALER_ROOT:-}/var/lib/clearml-autoscaler/boot"
if mkdir -p "$BOOT" && chmod 700 "$BOOT" && cd "$BOOT" &&
    printf '%s' "$PAYLOAD" | base64 -d | gunzip >unpack.sh && bash unpack.sh && rm -f unpack.sh; then
    exec bash boot.sh
fi
printf 'clearml-autoscaler: the boot script could not be unpacked: powering off\n' >&2
sleep "$LINGER"
shutdown -P now
exit 1
