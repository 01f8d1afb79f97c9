# What the pipeline deploys with: docs/deploy-pipelines.md, but for all hosts at once.
#   $ARTIFACT the file; $HELD, if set, a folder for an agent that does not want to leave
if [ -n "$HELD" ] && [ -n "$SALLYPORT_CANARY" ]; then
	setsid sh -c '
		ssh -F "$SALLYPORT_SSH_CONFIG" -o PermitLocalCommand=yes -o LocalCommand="touch $HELD/in" -N "$SALLYPORT_HOSTS"
		touch "$HELD/out"' >/dev/null 2>&1 </dev/null &
	until [ -e "$HELD/in" ] || [ -e "$HELD/out" ]; do sleep 0.05; done
fi
for host in $SALLYPORT_HOSTS; do
	(
		if ssh -F "$SALLYPORT_SSH_CONFIG" "$host" <"$ARTIFACT"; then result=ok; else result=failed; fi
		sally deploy report "$host=$result"
	) &
	jobs="$jobs $!"
done
wait $jobs
