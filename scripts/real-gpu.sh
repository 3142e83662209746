#!/usr/bin/env bash
# Runs the validation's wrapper on real GPUs, and NVIDIA's toolkit where it is there, and writes what
# came of it into a file. It needs NVIDIA's driver, nvcc, and this checkout; no cluster, no network.
# A machine without them is no fault: it says so and ends with 0.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
usage='scripts/real-gpu.sh [FILE]    default: docs/evidence/real-gpu.md'
case ${1:-} in
-h | --help)
  echo "$usage"
  exit 0
  ;;
-*)
  echo "unknown option $1"$'\n\n'"$usage" >&2
  exit 2
  ;;
esac
file=${1:-$root/docs/evidence/real-gpu.md}

for program in nvidia-smi nvcc; do
  command -v $program >/dev/null 2>&1 || {
    echo "no evidence written: $program is not here; run this on a machine with NVIDIA's driver and CUDA's compiler"
    exit 0
  }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
steps=0
held=0
body=$work/body

# step TITLE EXPECTED COMMAND…: EXPECTED is a pattern that the output must hold.
step() {
  local title=$1 expected=$2 from to code result
  shift 2
  from=$(date +%s%N)
  output=$("$@" 2>&1)
  code=$?
  to=$(date +%s%N)
  steps=$((steps + 1))
  result='**did not hold**'
  if [[ $output =~ $expected ]]; then
    result=held
    held=$((held + 1))
  fi
  {
    printf '## %s: %s\n\n' "$title" "$result"
    printf 'Exit code %s, %s s, expected `%s`.\n\n' "$code" "$(awk "BEGIN { printf \"%.2f\", ($to - $from) / 1e9 }")" "$expected"
    printf '```\n%s\n```\n\n' "${output:0:4000}"
  } >>"$body"
  echo "$title: $result"
  [ "$result" = held ]
}

# The very text that validation pods run; in a pod it writes its line into the pod's status.
sed -n '/^const WRAPPER = String.raw`/,/^exit \$code`;/p' "$root/reconciler/manifests/validation-pod.ts" |
  sed -e '1s/^const WRAPPER = String.raw`//' -e '$s/`;$//' -e "s|/dev/termination-log|\"\$GPU_GATE_VERDICT\"|" >"$work/wrapper.sh"
export GPU_GATE_VERDICT=$work/verdict
validate() { # VISIBLE PROGRAM
  : >"$GPU_GATE_VERDICT"
  CUDA_VISIBLE_DEVICES=$1 sh "$work/wrapper.sh" "$2"
  local code=$?
  cat "$GPU_GATE_VERDICT"
  return $code
}

step 'The cards' 'GPU-' nvidia-smi --query-gpu=index,uuid,name,driver_version,memory.total --format=csv,noheader
cards=$output
step 'The compiler' 'release' nvcc --version
if step 'vectorAdd is built from our source' 'built' sh -c 'nvcc -o "$1" "$2" && echo built' sh "$work/vectorAdd" "$root/scripts/real-gpu/vector-add.cu"; then
  while read -r uuid; do
    step "The validation on $uuid" '"verdict":"pass"' validate "$uuid" "$work/vectorAdd"
  done < <(printf '%s\n' "$cards" | grep -o 'GPU-[0-9A-Za-z-]*')
  step 'The validation with no GPU visible' '"verdict":"fail"' validate '' "$work/vectorAdd"
  step 'The validation of a program that is not there' '"verdict":"none"' validate '' "$work/absent"
fi
if command -v nvidia-ctk >/dev/null 2>&1; then
  step 'The toolkit describes the GPUs' 'kind: *"?nvidia.com/gpu' sh -c 'nvidia-ctk cdi generate --output="$1" && cat "$1"' sh "$work/cdi.yaml"
else
  printf '## The toolkit describes the GPUs: not run\n\n`nvidia-ctk` is not on this machine.\n\n' >>"$body"
fi

mkdir -p "$(dirname "$file")"
{
  printf '# Evidence of a real GPU\n\nWritten by `scripts/real-gpu.sh` on %s, kernel %s. %s of %s steps held.\n\n' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(uname -r)" "$held" "$steps"
  cat "$body"
} >"$file"
echo "$held of $steps steps held: $file"
