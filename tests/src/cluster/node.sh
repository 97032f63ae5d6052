# A node, as the first process of a PID namespace with mounts of its own: what is started and mounted here ends with it.
#
# environment: DIR, PROGRAMS, CGROUP. It starts when a line comes on stdin, by when its network is there. Run again over the
# same DIR, it is the same node after a loss of power. What comes after this starts containerd and the kubelet.
read -r _
set -eu
: "${DRIVER=cgroupfs}" "${SYSTEMD=false}" "${ROOT=$CGROUP}"
mount --make-rprivate /
mount --make-rshared /
cd "$DIR/node"
mount --bind lib /var/lib
mount --bind log /var/log
mount -t tmpfs -o mode=755 tmpfs /run
# The kubelet sets what belongs to the whole machine; here it finds everything as it wants it.
mkdir -p /run/sysctl
set_as() {
    echo "$2" > "/run/sysctl/${1##*/}"
    mount --bind "/run/sysctl/${1##*/}" "/proc/sys/$1"
}
set_as vm/overcommit_memory 1
set_as vm/panic_on_oom 0
set_as kernel/panic 10
set_as kernel/panic_on_oops 1
set_as kernel/keys/root_maxkeys 1000000
set_as kernel/keys/root_maxbytes 25000000

# In place of kube-proxy: the one service that there is.
for chain in PREROUTING OUTPUT; do
    iptables -w -t nat -A "$chain" -d 10.96.0.1 -p tcp --dport 443 -j DNAT --to-destination 192.0.2.2:6443
done

cat > cni/10-lab.conflist << END
{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "subnet": "10.213.0.0/24", "dataDir": "/run/cni", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
cat > containerd.toml << END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/lab/pause:1"
# Not every host lets root make a process harder to kill.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$DIR/node/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = $SYSTEMD
END
cat > kubelet.yaml << END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $DIR/pki/node.crt
tlsPrivateKeyFile: $DIR/pki/node.key
cgroupDriver: $DRIVER
# The kubelet ends what it does not know in its part of the tree, so that is this node's alone.
cgroupRoot: $ROOT
failSwapOn: false
resolvConf: ""
# By itself it looks at a ConfigMap about once a minute.
syncFrequency: 5s
# The disk is the whole machine's, which others fill: it moves nobody.
evictionHard: {memory.available: 50Mi}
imageGCHighThresholdPercent: 100
volumePluginDir: $DIR/node/plugins
END
containerd="$(command -v containerd) --config $DIR/node/containerd.toml"
kubelet="$PROGRAMS/kubelet --config=$DIR/node/kubelet.yaml --kubeconfig=$DIR/conf/node --hostname-override=node-1
    --node-ip=192.0.2.1 --root-dir=/var/lib/kubelet --container-runtime=remote
    --container-runtime-endpoint=unix:///run/containerd/containerd.sock"
