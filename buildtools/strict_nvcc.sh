#!/bin/sh
# Runs the compiler given as arguments and fails where ptxas tells of a loss that it only mentions (messages C75xx:
# "Potential Performance Loss": wgmma serialised, setmaxnreg ignored).
output=$("$@" 2>&1)
status=$?
[ -z "$output" ] || printf '%s\n' "$output"
case $output in
  *"Potential Performance Loss"*)
    echo "error: ptxas could not keep what the kernel says, see the message above"
    exit 1
    ;;
esac
exit $status
