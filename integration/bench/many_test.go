package main

import "testing"

func TestMetrics(t *testing.T) {
	const text = `# HELP apiserver_longrunning_requests Gauge of all active long-running requests.
apiserver_longrunning_requests{resource="pods",subresource="",verb="WATCH"} 3
apiserver_longrunning_requests{resource="nodes",subresource="",verb="WATCH"} 2
apiserver_longrunning_requests{resource="pods",subresource="portforward",verb="CONNECT"} 4
apiserver_longrunning_requests_total{verb="WATCH"} 100
process_resident_memory_bytes 2.62144e+08
`
	m := metrics(text)
	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"apiserver_longrunning_requests", []string{`verb="WATCH"`}, 5},
		{"apiserver_longrunning_requests", []string{`verb="WATCH"`, `resource="pods"`}, 3},
		{"apiserver_longrunning_requests", []string{`subresource="portforward"`}, 4},
		{"process_resident_memory_bytes", nil, 250 << 20},
		{"nothing", nil, 0},
	} {
		if got := m.sum(tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s %v: got %g, want %g", tt.name, tt.labels, got, tt.want)
		}
	}
}

func TestConnectionsTo(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1100        0 1 1 0000000000000000 100 0 0 10 0
   1: 02014D0A:A1B2 01004D0A:192B 01 00000000:00000000 00:00000000 00000000  1100        0 2 1 0000000000000000 20 4 30 10 -1
   2: 02014D0A:A1B3 01004D0A:192B 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000000000000000
   3: 02014D0A:192B 01004D0A:01BB 01 00000000:00000000 00:00000000 00000000  1100        0 3 1 0000000000000000 20 4 30 10 -1
`
	if got := connectionsTo([]byte(table), 6443); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}
