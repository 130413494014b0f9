#!/bin/sh
# Stands in for the agent: says how it was started, and does nothing.
echo "placeholder started: $# $* $GREETING"
echo "$$" >>/run/starts
exec sleep 1000000
