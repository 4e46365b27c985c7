#!/usr/bin/env bash
# run.sh, with packages installed by uv (pip fetches uv itself where it is missing). Takes the same arguments and variables.
INSTALLER=uv exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" "$@"
