package labnode

// Scripts for the second node of a lab that has one, to be run on the first.
const (
	// PowerOff ends all of it at once. Its disk keeps what it has.
	PowerOff = power + "kill -USR2 $pid\n"
	PowerOn  = power + "kill -USR1 $pid\n"
	// CutWire has what goes to it and comes from it disappear, without a word to anybody.
	CutWire = `nft -f - <<END
table inet cut {
	chain to {
		type filter hook postrouting priority filter; policy accept;
		ip daddr { 10.77.0.2, 10.244.1.0/24 } drop
		ip6 daddr { fd10:77::2, fd10:244:0:1::/64 } drop
	}
	chain from {
		type filter hook prerouting priority raw; policy accept;
		ip saddr { 10.77.0.2, 10.244.1.0/24 } drop
		ip6 saddr { fd10:77::2, fd10:244:0:1::/64 } drop
	}
}
END
`
	MendWire = "nft delete table inet cut\n"

	// power finds the program that has the second node's power, of which the lab's kubelet is a child.
	power = `for d in /proc/[0-9]*; do
  case "$(tr '\0' ' ' <$d/cmdline 2>/dev/null)" in "lab __node "*/second\ ) ;; "lab __node "*) pid=${d#/proc/} ;; esac
done
`
)
