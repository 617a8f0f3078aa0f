# agent.sh run | ended: runs the agent; when it ends, for whatever reason, so does the machine.
HERE="$(cd "$(dirname "$0")" && pwd)"
. "$HERE/environment"

power_off() {
    local left=60
    until shutdown -P now; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 5
    done
}

case "$1" in
    run)
        umask 022
        cd "${HOME:-/}" || cd /
        words=()
        while IFS= read -r -d '' word; do
            words+=("$word")
        done <"$HERE/agent.words"
        mkdir -p "${words[3]}"
        "${words[@]}"
        printf 'clearml-autoscaler: the agent ended with status %s: powering off\n' "$?"
        power_off
        ;;
    ended)
        # A reboot ends the agent too, and is to remain one.
        [ "$(systemctl is-system-running)" = stopping ] || power_off
        ;;
esac
