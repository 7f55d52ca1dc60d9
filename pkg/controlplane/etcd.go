package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

const (
	// etcdStartTimeout is how long reading the data and becoming leader may
	// take; a big log on a slow disk takes seconds.
	etcdStartTimeout = 2 * time.Minute
	// etcdStopTimeout is how long a clean stop may take before the data is left
	// as after a crash, which it survives.
	etcdStopTimeout = 15 * time.Second

	// etcdCampaignInterval is how often a member tries to become leader.
	etcdCampaignInterval = 2 * time.Millisecond

	// A snapshot is taken after so many entries of the log, and so many of the
	// newest ones stay in memory after they were applied. Others keep them for
	// followers; here see campaigns. They are those since the last snapshot and
	// those that were written at once, of which the API server lets through 600.
	etcdSnapshotEntries = 400
	etcdKeptEntries     = 1024

	// etcdQuotaBytes is where etcd refuses writes, to protect the disk and the
	// memory that maps the file.
	etcdQuotaBytes = 2 << 30

	// etcdMinFreeBytes must be free for a start: two log segments and room for
	// the first pages of the database.
	etcdMinFreeBytes = 4 * walSegmentBytes

	etcdName   = "sublet"
	etcdSocket = "etcd.sock"
)

// etcd is the one member that holds a control plane's data. It listens on a
// unix socket alone.
type etcd struct {
	server *embed.Etcd
	// client calls it without a connection.
	client *clientv3.Client
	// campaigns tells that it does not wait for its clock to be elected.
	campaigns bool
	// died tells why it cannot go on.
	died     chan error
	stopOnce sync.Once
}

// startEtcd opens the data in dataDir, which was prepared and locked, and serves
// it on sockets in runDir. It never deletes data.
func startEtcd(ctx context.Context, dataDir, runDir string) (*etcd, error) {
	e := &etcd{died: make(chan error, 1)}
	config := etcdConfig(dataDir, runDir)
	e.campaigns = campaigns(dataDir)
	if !e.campaigns {
		config.TickMs, config.ElectionMs = 20, 100
	}
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger(klog.FromContext(ctx).WithName("etcd"), e.fail))

	if err := e.open(ctx, config); err != nil {
		e.stop()
		return nil, dataDirError(dataDir, err)
	}
	go e.watch()
	return e, nil
}

// open starts the member and waits until it leads.
func (e *etcd) open(ctx context.Context, config *embed.Config) error {
	started := make(chan error, 1)
	go func() {
		// etcd's loggers end the goroutine that logs something fatal, see
		// etcdLogger, so the result may only come from the deferred function.
		err := errors.New("it stopped while it opened its data")
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("it panicked: %v", r)
			}
			started <- err
		}()
		var server *embed.Etcd
		if server, err = embed.StartEtcd(config); err == nil {
			e.server = server
		}
	}()

	timeout := time.NewTimer(etcdStartTimeout)
	defer timeout.Stop()
	select {
	case err := <-started:
		if err != nil {
			return e.reason(err)
		}
	case err := <-e.died:
		// A goroutine ended that the start waits for.
		return err
	case <-timeout.C:
		return fmt.Errorf("its data was not read within %s", etcdStartTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := e.lead(ctx, timeout.C); err != nil {
		return err
	}
	e.client = v3client.New(e.server.Server)
	return e.call(func() error { return e.makeRoom(ctx) })
}

// campaigns tells whether a member with this data may do so while it applies its
// log. It then looks for the entries that raft does not know yet to be applied,
// and ends when etcd has dropped one of them from memory. etcd keeps the newest
// ones, as many as there can be since a snapshot, but never the first one of all.
// So the log must either be empty or begin with a snapshot, which each start
// takes care of for the next one.
func campaigns(dataDir string) bool {
	member := filepath.Join(dataDir, "member")
	if _, err := os.Stat(filepath.Join(member, "wal")); errors.Is(err, os.ErrNotExist) {
		return true
	}
	snapshots, err := filepath.Glob(filepath.Join(member, "snap", "*.snap"))
	return err == nil && len(snapshots) > 0
}

// lead makes the member the leader and waits until it is. Nobody else votes, so it
// need not wait for ticks of its clock, as by itself it would, in case there is a
// leader already.
func (e *etcd) lead(ctx context.Context, timeout <-chan time.Time) error {
	server := e.server.Server
	self := uint64(server.MemberID())
	again := time.NewTicker(etcdCampaignInterval)
	defer again.Stop()
	for {
		// Until it has found itself in its log this is for nothing.
		if e.campaigns && server.Leader() == 0 && server.AppliedIndex() == server.CommittedIndex() {
			_ = server.Process(ctx, raftpb.Message{Type: raftpb.MsgTimeoutNow, From: self, To: self})
		}
		select {
		case <-again.C:
		case <-server.ReadyNotify():
			// With the next entry, see campaigns.
			server.ForceSnapshot()
			return nil
		case err := <-e.died:
			return err
		case <-timeout:
			return fmt.Errorf("it did not become leader within %s", etcdStartTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// call does something that asks the member, which ends the goroutine where it
// cannot go on, see etcdLogger.
func (e *etcd) call(do func() error) error {
	ended := make(chan error, 1)
	go func() {
		err := errors.New("it stopped while it was asked")
		defer func() { ended <- err }()
		err = do()
	}()
	if err := <-ended; err != nil {
		return e.reason(err)
	}
	return nil
}

// makeRoom takes back the refusal of writes that etcd keeps up once its quota
// was reached: there is no other one who could. If there is no room, writes stay
// refused and deletions are possible.
func (e *etcd) makeRoom(ctx context.Context) error {
	alarms, err := e.client.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("asking for its alarms: %w", err)
	}
	full := slices.ContainsFunc(alarms.Alarms, func(alarm *etcdserverpb.AlarmMember) bool {
		return alarm.Alarm == etcdserverpb.AlarmType_NOSPACE
	})
	if !full {
		return nil
	}
	status, err := e.client.Status(ctx, "")
	if err != nil {
		return fmt.Errorf("asking for its size: %w", err)
	}
	if _, err := e.client.Compact(ctx, status.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("dropping old revisions: %w", err)
	}
	// Without the client, which reports it to health checks that are not there.
	if err := e.server.Server.Backend().Defrag(); err != nil {
		return fmt.Errorf("shrinking its database: %w", err)
	}
	if status, err = e.client.Status(ctx, ""); err != nil {
		return fmt.Errorf("asking for its size: %w", err)
	}
	if status.DbSize > etcdQuotaBytes/10*9 {
		klog.FromContext(ctx).Error(nil, "The database is full: writes are refused until objects are deleted and the control plane is started again",
			"size", status.DbSize, "limit", etcdQuotaBytes)
		return nil
	}
	if _, err := e.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("allowing writes again: %w", err)
	}
	return nil
}

// reason is the fatal error that etcd logged, which says more than what it
// returned, or else err.
func (e *etcd) reason(err error) error {
	select {
	case fatal := <-e.died:
		return fatal
	default:
		return err
	}
}

// watch reports the death of the member's servers.
func (e *etcd) watch() {
	select {
	case err := <-e.server.Err():
		if err != nil {
			e.fail(err)
		}
	case <-e.server.Server.StopNotify():
		e.fail(errors.New("it stopped by itself"))
	}
}

func (e *etcd) fail(err error) {
	select {
	case e.died <- err:
	default:
		// The first reason is the one to know.
	}
}

// stop closes the member after everything that writes to it has stopped.
func (e *etcd) stop() {
	e.stopOnce.Do(func() {
		if e.client != nil {
			_ = e.client.Close()
		}
		if e.server != nil {
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				e.server.Close()
			}()
			select {
			case <-closed:
			case <-time.After(etcdStopTimeout):
			}
		}
	})
}

// etcdEndpoint is what its clients dial.
func etcdEndpoint(runDir string) string { return "unix://" + filepath.Join(runDir, etcdSocket) }

func etcdConfig(dataDir, runDir string) *embed.Config {
	config := embed.NewConfig()
	config.Name = etcdName
	config.Dir = dataDir

	// Clients speak gRPC on one socket. The other one, for HTTP, is there only
	// because etcd otherwise looks into each connection for which it is.
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(runDir, etcdSocket)}}
	config.ListenClientHttpUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(runDir, "etcd-http.sock")}}
	config.EnableGRPCGateway = false
	// A single member has no peers, so nothing listens for them; the advertised
	// URLs are names in the data and must not change.
	config.ListenPeerUrls = nil
	peer := url.URL{Scheme: "http", Host: "localhost:2380"}
	config.AdvertisePeerUrls = []url.URL{peer}
	config.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "localhost:2379"}}
	config.InitialCluster = etcdName + "=" + peer.String()

	// Each tick is a wake-up, and serves nothing but to notice that other members
	// are gone; see lead for the election.
	config.TickMs = 1000
	config.ElectionMs = 5 * config.TickMs
	// The log keeps what is not in the database yet, which fewer transactions
	// write at once.
	config.BackendBatchInterval = 500 * time.Millisecond
	config.SnapshotCount = etcdSnapshotEntries
	config.SnapshotCatchUpEntries = etcdKeptEntries
	config.QuotaBackendBytes = etcdQuotaBytes
	// The seeding of a first boot is one transaction.
	config.MaxTxnOps = 1024
	return config
}

func prepareDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory %q: %w; make it writable, or choose another one", dir, err)
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("data directory %q: %w", dir, err)
	}
	return enoughSpace(dir, stat.Bavail*uint64(stat.Bsize))
}

func enoughSpace(dir string, free uint64) error {
	if free < etcdMinFreeBytes {
		return fmt.Errorf("data directory %q: only %d MiB are free and %d MiB are needed: give the volume more space; nothing was changed",
			dir, free>>20, etcdMinFreeBytes>>20)
	}
	return nil
}

// lockDataDir makes sure that no other control plane writes there, which etcd
// itself would wait for without end.
func lockDataDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %q: %w; make it writable, or choose another one", dir, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("data directory %q is in use by another control plane: stop that one first, or choose another directory", dir)
	}
	return file, nil
}

// dataDirError says what to do about data that cannot be opened.
func dataDirError(dir string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd: %w", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("etcd: data directory %q is full: give the volume more space, then start again: %w", dir, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("etcd: data directory %q cannot be written: correct its owner or its mount: %w", dir, err)
	}
	return fmt.Errorf("etcd: the data in %q cannot be read: restore the directory from a backup, or move it away to begin with an empty cluster; nothing was deleted: %w", dir, err)
}

// etcdLogger sends etcd's warnings and errors to ours. What etcd calls fatal or
// panics for becomes an error: fail is told, and the goroutine ends, instead of
// the process.
func etcdLogger(logger klog.Logger, fail func(error)) *zap.Logger {
	hook := failHook{fail: fail}
	return zap.New(logCore{logger: logger}, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

type failHook struct{ fail func(error) }

func (h failHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	h.fail(entryError(entry.Message, fields))
	runtime.Goexit()
}

// entryError is what was logged, with its cause to be inspected.
func entryError(message string, fields []zapcore.Field) error {
	for _, field := range fields {
		if cause, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			return fmt.Errorf("%s: %w", message, cause)
		}
	}
	return errors.New(message)
}

// logCore is a zap core on top of a logr logger.
type logCore struct {
	logger klog.Logger
	fields []zapcore.Field
}

func (c logCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c logCore) With(fields []zapcore.Field) zapcore.Core {
	c.fields = append(append([]zapcore.Field(nil), c.fields...), fields...)
	return c
}

func (c logCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(entry.Level) {
		return checked
	}
	return checked.AddCore(entry, c)
}

func (c logCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if slices.Contains(expectedMessages(), entry.Message) {
		return nil
	}
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		field.AddTo(encoder)
	}
	values := make([]any, 0, 2*len(encoder.Fields))
	for key, value := range encoder.Fields {
		values = append(values, key, value)
	}
	if entry.Level >= zapcore.ErrorLevel {
		c.logger.Error(nil, entry.Message, values...)
		return nil
	}
	c.logger.V(1).Info(entry.Message, values...)
	return nil
}

func (c logCore) Sync() error { return nil }

// expectedMessages are errors to etcd that belong to the life of a single
// embedded member: no snapshot yet after the first start, listeners that are
// closed at the end.
func expectedMessages() []string {
	return []string{
		"failed to update storage version",
		"setting up serving from embedded etcd failed.",
		"Running http and grpc server on single port. This is not recommended for production.",
	}
}
