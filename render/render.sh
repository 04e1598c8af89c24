#!/bin/sh
# From the frames of a rig to a video in one command: collect a clip, create a path of novel views, render.
#
#   sh render.sh FRAMES FIRST END NAME [OPTIONS of render_llff_video.py]     e.g. sh render.sh frames 0 20 qual
#
# FRAMES    folder of the rig, relative to the working directory: camNN/00000.jpg ... or camNN.mp4, poses_bounds.npy
# FIRST END frame numbers; END is exclusive
# NAME      name of the outputs:
#   FRAMES/NAME          the collected clip, its path in the first frame's folder: FRAMES/NAME/00000/qual_path.txt
#   FRAMES/background    each camera's background
#   FRAMES/NAME_video    the pictures and video.mp4
#
# Python: $PYTHON if set, else the project's .venv, else python3. Existing outputs are kept, so that the same command
# continues an interrupted run; only the path is always created again.
set -eu

if [ $# -lt 4 ]; then
    echo "usage: sh render.sh FRAMES FIRST END NAME [OPTIONS of render_llff_video.py]" >&2
    echo "e.g.   sh render.sh frames 0 20 qual" >&2
    exit 2
fi

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
frames=${1%/}
first=$2
end=$3
name=$4
shift 4

python=${PYTHON:-}
if [ -z "$python" ]; then
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=python3
fi

clip=$frames/$name
"$python" "$root/data_tools/collect_data.py" "$frames" "$first" "$end" "$name"
"$python" "$root/data_tools/imgs2renderpath.py" "$clip"
"$python" "$root/render/render_llff_video.py" --config "$root/configs/render_video.txt" \
    --root_dir "$clip" --bg_dir "$frames/background" --out_dir "${clip}_video" --path none "$@"
