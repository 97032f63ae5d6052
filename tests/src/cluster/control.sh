# The machine of the control plane, as the first process of a PID namespace: what is started here ends with it.
#
# environment: DIR, PROGRAMS. It starts when a line comes on stdin, by when its network is there, and ends with stdin.
read -r _
cd "$DIR/pki" || exit 1

# start NAME ARGUMENTS...
start() {
    name=$1
    shift
    "$@" > "$DIR/log/$name.log" 2>&1 &
}
start etcd etcd --data-dir "$DIR/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
start kube-apiserver "$PROGRAMS/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address=192.0.2.2 --secure-port=6443 --anonymous-auth=false \
    --client-ca-file=ca.crt --tls-cert-file=server.crt --tls-private-key-file=server.key \
    --kubelet-certificate-authority=ca.crt --kubelet-client-certificate=admin.crt --kubelet-client-key=admin.key \
    --kubelet-preferred-address-types=InternalIP \
    --service-account-key-file=account.key --service-account-signing-key-file=account.key \
    --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=false
# The others give up where there is no API yet.
until kubectl --kubeconfig "$DIR/conf/admin" get --raw /readyz > "$DIR/log/ready.log" 2>&1; do sleep 0.2; done
own() {
    for flag in kubeconfig authentication-kubeconfig authorization-kubeconfig; do echo "--$flag=$DIR/conf/$1"; done
}
start kube-controller-manager "$PROGRAMS/kube-controller-manager" $(own controller) --leader-elect=false \
    --service-account-private-key-file=account.key --root-ca-file=ca.crt --use-service-account-credentials
start kube-scheduler "$PROGRAMS/kube-scheduler" $(own scheduler) --leader-elect=false
cat
:
