#!/bin/bash
# What the action does: sally deploy run with its inputs, and its outputs from the answer.
# The shell is between the runner and sally, so it hands Ctrl-C on: a job that is cancelled
# aborts the deployment.
set -uo pipefail

args=(--service "$IN_SERVICE" --environment "$IN_ENVIRONMENT" --wait "$IN_WAIT" --output json)
for option in artifact:"${IN_ARTIFACT-}" digest:"${IN_DIGEST-}" hosts:"${IN_HOSTS-}" batch-size:"${IN_BATCH_SIZE-}" soak:"${IN_SOAK-}"; do
  [ -z "${option#*:}" ] || args+=("--${option%%:*}" "${option#*:}")
done

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
"$IN_SALLY" deploy run "${args[@]}" -- sh -c "$IN_RUN" >"$answer" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' INT TERM
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do # a signal has ended the wait, and sally is ending
  code=0
  wait "$child" || code=$?
done

value() { sed -n "s/^  \"$1\": \"\([a-z0-9_-]*\)\",\{0,1\}$/\1/p" "$answer" | head -n 1; }
waiting=false
[ "$code" -ne 4 ] || waiting=true
{
  echo "deployment=$(value id)"
  echo "state=$(value state)"
  echo "waiting=$waiting"
} >>"$GITHUB_OUTPUT"
if "$waiting"; then
  echo "::notice::$(value id) goes on later than this job waits; run the workflow again then"
  exit 0
fi
exit "$code"
