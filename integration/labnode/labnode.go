// Package labnode is what an administrator of the lab's node sees and does, from inside of the cluster.
package labnode

// Pod is a pod, node in kube-system, that has the node's programs and process ids and all rights. Shell scripts are run there,
// by kubectl exec, with Path in front of them.
const Pod = `apiVersion: v1
kind: Pod
metadata: {name: node, namespace: kube-system}
spec:
  nodeName: lab
  hostPID: true
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: node
    image: lab.local/pause:1
    imagePullPolicy: IfNotPresent
    securityContext: {privileged: true, runAsUser: 0, runAsGroup: 0}
    volumeMounts:
    - {name: usr, mountPath: /usr, readOnly: true}
    - {name: bin, mountPath: /bin, readOnly: true}
    - {name: lib, mountPath: /lib, readOnly: true}
    - {name: lib64, mountPath: /lib64, readOnly: true}
  volumes:
  - {name: usr, hostPath: {path: /usr}}
  - {name: bin, hostPath: {path: /usr/bin}}
  - {name: lib, hostPath: {path: /usr/lib}}
  - {name: lib64, hostPath: {path: /usr/lib64, type: DirectoryOrCreate}}
`

// Path lets a script find the node's programs.
const Path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"

// Scripts that let the laptop reach the UDP ports of pods, which it else cannot, and that take that back.
const (
	Flat = `wire=$(nft list chain inet laptop from | sed -n 's/.*iifname "\(.*\)" drop.*/\1/p')
for chain in from through; do nft insert rule inet laptop $chain iifname $wire meta l4proto udp accept comment '"direct"'; done
nft insert rule inet laptop through oifname $wire meta l4proto udp accept comment '"direct"'
`
	Walled = `for chain in from through; do
	nft -a list chain inet laptop $chain | sed -n 's/.*comment "direct" # handle //p' | while read -r handle; do nft delete rule inet laptop $chain handle $handle; done
done
`
)
