package controlplane

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// TestFullDatabase checks that a database which once was full takes writes
// again after a start with room in it.
func TestFullDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real etcd")
	}
	dir := t.TempDir()
	first, err := startEtcd(t.Context(), dir, shortTempDir(t))
	must(t, "starting", err)
	defer first.stop()
	_, err = first.client.Put(t.Context(), "kept", "value")
	must(t, "writing", err)
	_, err = first.server.Server.Alarm(t.Context(), &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE,
		Alarm:  etcdserverpb.AlarmType_NOSPACE,
	})
	must(t, "raising the alarm", err)
	if _, err := first.client.Put(t.Context(), "lost", "value"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("writing to a full database: %v", err)
	}
	first.stop()

	second, err := startEtcd(t.Context(), dir, shortTempDir(t))
	must(t, "starting again", err)
	defer second.stop()
	_, err = second.client.Put(t.Context(), "again", "value")
	must(t, "writing after a start", err)
	got, err := second.client.Get(t.Context(), "kept")
	must(t, "reading", err)
	if len(got.Kvs) != 1 {
		t.Error("what was written is lost")
	}
}

// TestEtcdDies checks that what etcd calls fatal comes out as an error and ends
// no process.
func TestEtcdDies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real etcd")
	}
	e, err := startEtcd(t.Context(), t.TempDir(), shortTempDir(t))
	must(t, "starting", err)
	defer e.stop()
	logger := e.server.GetLogger()
	done := make(chan struct{})
	go func() {
		defer close(done)
		logger.Fatal("failed to save raft state")
	}()
	<-done
	if err := <-e.died; err == nil || !strings.Contains(err.Error(), "failed to save raft state") {
		t.Errorf("died is %v", err)
	}
}
