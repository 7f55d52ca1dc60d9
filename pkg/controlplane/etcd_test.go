package controlplane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/wal"
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

// TestKillEtcd kills an etcd under load again and again. Each start must lead,
// with as much of its log to apply as can be, and find everything that was
// acknowledged.
func TestKillEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real etcd")
	}
	const kills = 12
	dir := shortTempDir(t)
	acknowledged := map[string]bool{}
	for kill := range kills {
		command := exec.Command(os.Args[0], dir)
		command.Env = append(os.Environ(), helperVariable+"=etcd writer")
		command.Stderr = os.Stderr
		output, err := command.StdoutPipe()
		must(t, "starting a writer", err)
		must(t, "starting a writer", command.Start())
		// Most of a snapshot's interval is left to apply, of another length each
		// time.
		wanted := etcdSnapshotEntries + kill*etcdSnapshotEntries/kills
		lines, seen := bufio.NewScanner(output), 0
		for lines.Scan() {
			if key, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
				acknowledged[fmt.Sprintf("%d-%s", kill, key)] = true
				if seen++; seen == wanted {
					must(t, "killing the writer", command.Process.Kill())
				}
			}
		}
		_ = command.Wait()
		if seen < wanted {
			t.Fatalf("start %d: the writer ended after %d writes", kill, seen)
		}
	}

	e, err := startEtcd(t.Context(), filepath.Join(dir, "data"), shortTempDir(t))
	must(t, "starting after the last kill", err)
	defer e.stop()
	for kill := range kills {
		found, err := e.client.Get(t.Context(), fmt.Sprintf("%d-", kill), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		must(t, "reading", err)
		for _, kv := range found.Kvs {
			delete(acknowledged, string(kv.Key))
		}
	}
	for key := range acknowledged {
		t.Errorf("%q was acknowledged and is lost", key)
	}
}

// putUntilKilled is the process that TestKillEtcd kills.
func putUntilKilled(ctx context.Context, dir string) error {
	data := filepath.Join(dir, "data")
	if err := prepareDataDir(data); err != nil {
		return err
	}
	runDir, err := makeRunDir(data)
	if err != nil {
		return err
	}
	wal.SegmentSizeBytes = walSegmentBytes
	e, err := startEtcd(ctx, data, runDir)
	if err != nil {
		return err
	}
	starts, err := e.client.Get(ctx, "starts")
	if err != nil {
		return err
	}
	start := int64(0)
	if len(starts.Kvs) > 0 {
		start = starts.Kvs[0].Version
	}
	if _, err := e.client.Put(ctx, "starts", ""); err != nil {
		return err
	}
	var writers sync.WaitGroup
	for w := range 32 {
		writers.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d", w, i)
				if _, err := e.client.Put(ctx, fmt.Sprintf("%d-%s", start, key), strings.Repeat("b", 2000)); err != nil {
					return
				}
				fmt.Println("acknowledged", key)
			}
		})
	}
	writers.Wait()
	return <-e.died
}
