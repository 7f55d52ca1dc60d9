#!/usr/bin/env bash
# The main job of Sublet on a local host: two virtual clusters and a plain
# namespace, with kubectl and helm in them as in any cluster. `make demo` builds
# what this needs, brings the local host up, and runs it. Any other cluster will
# do, too: with KUBECONFIG set, bin/sublet and .cache/bin/{kubectl,helm} built,
# and the images of subletd and agnhost on its nodes.
#
# It may be run as often as you like.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/bin:$PWD/.cache/bin:$PATH"
KUBECONFIG=${KUBECONFIG:-$PWD/.host/kubeconfig}
export KUBECONFIG LC_ALL=C.UTF-8
# Neither the user's settings nor an earlier run's caches change what is shown.
export HELM_CACHE_HOME=$PWD/.cache/helm/cache HELM_CONFIG_HOME=$PWD/.cache/helm/config HELM_DATA_HOME=$PWD/.cache/helm/data

if [ -t 1 ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' cyan='' plain=''
fi
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
began=$(date +%s%N)
part=0

since() { # NANOSECONDS: the time since then, in seconds
  local ms=$((($(date +%s%N) - $1) / 1000000))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

chapter() {
  part=$((part + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$part" "$1" "$plain"
}

tell() { printf '   %s\n' "$*"; }

# show prints a command as one would type it.
show() {
  local word line=''
  for word in "$@"; do
    case $word in
    *[[:space:]\'\"\;\&\|\<\>\(\)\$\*]*) word="'$word'" ;;
    esac
    line+=" $word"
  done
  printf '   %s$%s%s\n' "$cyan" "$line" "$plain"
}

# run shows a command, runs it, and ends the demo if it fails. What it printed is
# left in $output.
output=''
run() {
  show "$@"
  local start status=0
  start=$(date +%s%N)
  "$@" 2>&1 </dev/null | tee "$scratch" | sed -u 's/^/     /' || status=${PIPESTATUS[0]}
  output=$(cat "$scratch")
  [ ! -s "$scratch" ] || [ -z "$(tail -c1 "$scratch")" ] || echo
  if [ "$status" != 0 ]; then
    printf '   %sfailed with exit code %d after %s%s\n' "$red" "$status" "$(since "$start")" "$plain"
    tell "What it says above tells why. The local host is left as it is, to look around in: export KUBECONFIG=$KUBECONFIG"
    exit 1
  fi
  printf '     %s%s%s\n' "$dim" "$(since "$start")" "$plain"
}

# refused shows a command that has to fail.
refused() {
  show "$@"
  if output=$("$@" 2>&1); then
    printf '%s\n' "$output" | sed 's/^/     /'
    fail "the command was to be refused, and was not"
  fi
  printf '%s\n' "$output" | sed 's/^/     /'
}

fail() {
  printf '   %s%s%s\n' "$red" "$*" "$plain"
  exit 1
}

# expect TEXT WHAT: the last output has the text in it.
expect() {
  case $output in
  *"$1"*) printf '   %s✓%s %s\n' "$green" "$plain" "$2" ;;
  *) fail "expected to see \"$1\": $2" ;;
  esac
}

# in_tenant TENANT COMMAND: in the tenant's cluster.
in_tenant() {
  local tenant=$1
  shift
  run sublet connect "$tenant" -- "$@"
}

for program in sublet kubectl helm; do
  command -v "$program" >/dev/null || fail "$program is not built: run make build tools"
done
kubectl get nodes >/dev/null 2>&1 || fail "no cluster answers at $KUBECONFIG: run make up"

printf '%sSublet: many tenants in one Kubernetes cluster%s\n' "$bold" "$plain"
tell "The host is the cluster of $KUBECONFIG:"
run kubectl get nodes -o wide

chapter "Install: one manager, no webhook"
run sublet install
run kubectl -n sublet-system get pods
expect Running "the manager runs"

chapter "A virtual cluster for acme"
run sublet create acme
expect "ready" "acme can be used"
in_tenant acme kubectl get namespaces
expect default "these are acme's own namespaces, not the host's"
in_tenant acme kubectl version

chapter "acme installs what needs rights in a whole cluster"
in_tenant acme kubectl apply -f hack/demo/manifests/widgets-v1.yaml
in_tenant acme helm upgrade --install board hack/demo/charts/board --namespace notes --create-namespace --wait --timeout 3m
expect "STATUS: deployed" "a chart with a CRD, cluster roles, a volume claim and a hook is deployed by unmodified helm"
in_tenant acme kubectl -n notes get deployment,service,configmap,secret,persistentvolumeclaim,job,notice
expect "put up by the hook" "the hook of the chart wrote to acme's API with the token of its ServiceAccount"
in_tenant acme kubectl get nodes
expect Ready "acme sees the nodes that its pods run on"

chapter "Its pods run, find each other by name, and can be entered"
in_tenant acme kubectl -n notes apply -f hack/demo/manifests/client.yaml
in_tenant acme kubectl -n notes wait --for=condition=Ready pod/client --timeout=60s
in_tenant acme kubectl -n notes exec client -- curl -sS --max-time 5 http://board.notes.svc.cluster.local/hostname
expect "board-" "a pod of the Deployment answered, by the Service's DNS name"
in_tenant acme kubectl -n notes exec deploy/board -- sh -c 'echo "key $KEY on node $NODE"; cat /etc/board/welcome.txt; date > /var/board/visited && ls /var/board'
expect "key open-sesame" "secret, config map and volume are where the chart wants them"
in_tenant acme kubectl -n notes logs job/board-first-notice
expect "the first notice" "logs of the hook's pod"

chapter "The same pods, from both sides"
inside=$(sublet connect acme -- kubectl get pods -A -o 'jsonpath={range .items[*]}{.status.podIP}{" "}{.metadata.namespace}/{.metadata.name}{"\n"}{end}' | sort)
outside=$(kubectl -n acme get pods -o 'jsonpath={range .items[*]}{.status.podIP}{" "}{.metadata.namespace}/{.metadata.name}{"\n"}{end}' | sort)
pairs=$(join <(printf '%s\n' "$inside") <(printf '%s\n' "$outside"))
{
  echo "ADDRESS|IN ACME, namespace/name|ON THE HOST, namespace/name"
  printf '%s\n' "$pairs" | awk '{print $1 "|" $2 "|" $3}'
} | awk -F'|' '{printf "     %-14s %-34s %s\n", $1, $2, $3}'
together=$(printf '%s\n' "$pairs" | grep -c notes/ || true)
[ "$together" -ge 3 ] || fail "expected at least three pods of acme on the host, found $together"
tell "On the host they are ordinary pods, all in the one namespace acme:"
run kubectl -n acme get pods,services

chapter "A second tenant wants the same CRD in another version"
run sublet create globex
in_tenant globex kubectl apply -f hack/demo/manifests/widgets-v2.yaml
crd_versions() {
  for tenant in acme globex; do
    printf '%-8s %s\n' "$tenant" "$(sublet connect "$tenant" -- kubectl get crd widgets.example.com -o 'jsonpath={.spec.versions[*].name}')"
  done
}
output=$(crd_versions)
printf '%s\n' "$output" | sed 's/^/     /'
expect "acme     v1" "acme keeps its version"
expect "globex   v2" "globex has its own"
refused kubectl get crd widgets.example.com
expect "not found" "and the host knows nothing of either"

chapter "A plain namespace, for those who need no more"
run sublet create shop --type Namespace --quota requests.cpu=1,requests.memory=1Gi,pods=2
run kubectl -n shop apply -f hack/demo/manifests/till.yaml
run kubectl -n shop rollout status deployment/till --timeout=60s
refused kubectl -n shop apply -f hack/demo/manifests/client.yaml
expect "exceeded quota" "a third pod is over the quota of two"
run kubectl -n shop get resourcequota

chapter "What there is"
run sublet list
for tenant in acme globex shop; do
  expect "$tenant" "$tenant is listed"
done

printf '\n%sThat was the tour, in %s.%s\n\n' "$bold" "$(since "$began")" "$plain"
cat <<END
Go on playing:
  export KUBECONFIG=$KUBECONFIG PATH=$PWD/bin:$PWD/.cache/bin:\$PATH
  sublet connect acme          # then kubectl, helm, anything: it is a cluster
  sublet disconnect
  sublet describe acme
  sublet create yours --connect

Take down:
  sublet delete acme globex shop   # the tenants, and all that they left on the host
  make down                    # the local host, without a trace
END
