# The rest of a node by cgroupfs: it ends with stdin.
$containerd > "$DIR/log/containerd.log" 2>&1 &
$kubelet > "$DIR/log/kubelet.log" 2>&1 &
cat
:
