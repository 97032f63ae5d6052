# An authority of the cluster's own, a certificate for each who takes part, and the files by which they find the API.
#
# usage: sh pki.sh DIRECTORY; leaves pki/ and conf/ there. Addresses are those of control.sh and node.sh.
set -eu
mkdir -p "$1/pki" "$1/conf"
cd "$1/pki"
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=lab
openssl genrsa -out account.key 2048

# certificate NAME SUBJECT [OTHER NAMES]
certificate() {
    openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2"
    printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${3:+subjectAltName=$3}" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.crt"
}
certificate server /CN=kube-apiserver IP:10.96.0.1,IP:192.0.2.2,DNS:kubernetes.default.svc
certificate admin /O=system:masters/CN=admin
certificate controller /CN=system:kube-controller-manager
certificate scheduler /CN=system:kube-scheduler
certificate node /O=system:nodes/CN=system:node:node-1 IP:192.0.2.1,DNS:node-1

for who in admin controller scheduler node; do
    cat > "../conf/$who" << END
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://192.0.2.2:6443", certificate-authority: $1/pki/ca.crt}}]
users: [{name: $who, user: {client-certificate: $1/pki/$who.crt, client-key: $1/pki/$who.key}}]
contexts: [{name: lab, context: {cluster: lab, user: $who}}]
current-context: lab
END
done
