# The rest of a node by systemd: it becomes systemd, which runs containerd and the kubelet as services, and nothing else.
#
# The trees are mounted anew, to begin where this node does.
trees=$(awk '$3 ~ /^cgroup/ {print $2, $3, $4}' /proc/self/mounts)
umount -R /sys/fs/cgroup
case $trees in
"/sys/fs/cgroup cgroup2 "*) ;;
*) mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup ;;
esac
echo "$trees" | while read -r at kind options; do
    mkdir -p "$at"
    case $kind in
    cgroup2) mount -t cgroup2 cgroup2 "$at" ;;
    *)
        options=$(echo "$options" | tr , '\n' | grep -vxE 'r[wo]|(rel|no)atime|nosuid|nodev|noexec' | paste -sd,)
        case $options in name=*) options=none,$options ;; esac
        mount -t cgroup -o "$options" cgroup "$at"
        ;;
    esac
done
# What systemd would set for the whole machine.
mount --bind /dev/null /dev/console
for part in fs kernel; do
    mount --rbind "/proc/sys/$part" "/proc/sys/$part"
    mount -o remount,bind,ro "/proc/sys/$part"
done

mkdir -p /run/units
service() {
    cat > "/run/units/$1.service" << END
[Unit]
DefaultDependencies=no
[Service]
ExecStart=$2
KillMode=process
Delegate=yes
StandardOutput=append:$DIR/log/$1.log
StandardError=append:$DIR/log/$1.log
END
}
service containerd "$containerd"
service kubelet "$(echo $kubelet)"
cat > /run/units/node.target << END
[Unit]
DefaultDependencies=no
Wants=containerd.service kubelet.service
END
export SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none
exec /lib/systemd/systemd --system --unit=node.target --log-target=console --show-status=no
