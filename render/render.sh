#!/bin/sh
# From the frames of a rig to a video, all in one: collect a clip, make the path of novel views, render.
#
#   sh render.sh FRAMES FIRST END NAME [OPTIONS of render_llff_video.py]     e.g. sh render.sh frames 0 20 qual
#
# FRAMES    folder of the rig, relative to where this is called: camNN/00000.jpg ... or camNN.mp4, poses_bounds.npy
# FIRST END numbers of the frames, END itself not among them
# NAME      of what is made:
#   FRAMES/NAME          the collected clip, its path in the first frame's folder: FRAMES/NAME/00000/qual_path.txt
#   FRAMES/background    each camera's background
#   FRAMES/NAME_video    the pictures and video.mp4
#
# Python: $PYTHON if set, else the project's .venv, else python3. What is there already is kept, so an interrupted
# run goes on when it is started again; the path alone is made anew.
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
