# A volume outlives the container, and with it the journal and the key that instances know the autoscaler by.
[ -d "$STATE" ] && export XDG_STATE_HOME="$STATE"
exec "$OWN/controller" run
