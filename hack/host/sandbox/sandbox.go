//go:build linux

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is all that a sandbox is made from.
type Spec struct {
	// ID is that of the state directory, see ID.
	ID string
	// Dir is the state directory. All that the sandbox writes is below it.
	Dir string
	// Checkout stays visible inside, wherever it is.
	Checkout string
	// Hostname is the name of the node.
	Hostname string
	Link     Link
	// ServiceCIDR is the range of the cluster's Services.
	ServiceCIDR netip.Prefix
}

// Cgroup is the name of the sandbox's parent cgroup in each hierarchy.
func (s Spec) Cgroup() string { return "sublet-" + s.ID }

const (
	lockFile = "init.lock"
	pidFile  = "init.pid"
	logFile  = "log/init.log"
	// specFD and lockFD are the descriptors that process 1 inherits.
	specFD = 3
)

// Start makes the sandbox and runs the program argv in it as process 1, which
// must call Enter first. It returns once the sandbox is connected; it does not
// wait for process 1 to do anything.
func Start(s Spec, argv []string) error {
	lock, free, err := tryLock(s.Dir)
	if err != nil {
		return err
	}
	if !free {
		return fmt.Errorf("the sandbox of %s is running already", s.Dir)
	}
	defer lock.Close()
	if err := os.MkdirAll(filepath.Join(s.Dir, filepath.Dir(logFile)), 0o755); err != nil {
		return fmt.Errorf("make the directory for logs: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of the sandbox: %w", err)
	}
	defer log.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe to the sandbox: %w", err)
	}
	defer reader.Close()
	defer writer.Close()

	init := exec.Command(argv[0], argv[1:]...)
	init.Dir = "/"
	init.Env = environment(s.Checkout)
	init.Stdout, init.Stderr = log, log
	init.ExtraFiles = []*os.File{reader, lock}
	init.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := init.Start(); err != nil {
		return fmt.Errorf("make namespaces for the local host: %w", err)
	}
	pid := init.Process.Pid
	// Whatever fails from here on, process 1 must not stay: it has not been told
	// what to do, and so ends when the pipe is closed.
	if err := os.WriteFile(filepath.Join(s.Dir, pidFile), []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("note the process of the sandbox: %w", err)
	}
	if err := connect(s.Link, pid); err != nil {
		return err
	}
	if err := json.NewEncoder(writer).Encode(s); err != nil {
		return fmt.Errorf("tell the sandbox what it is: %w", err)
	}
	return init.Process.Release()
}

// environment is that of everything inside: nothing of the caller's, such as a
// proxy or a kubeconfig, may change how the host behaves.
func environment(checkout string) []string {
	return []string{
		"PATH=" + filepath.Join(checkout, ".cache/bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		// What is killed leaves its temporary files, which must go, too.
		"TMPDIR=" + temporary,
		"LANG=C.UTF-8",
	}
}

// Enter makes the calling process, which Start has started, ready: mounts,
// network, cgroup and names.
func Enter() (Spec, error) {
	var s Spec
	pipe := os.NewFile(specFD, "spec")
	defer pipe.Close()
	if err := json.NewDecoder(pipe).Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("whoever started it went away")
		}
		return s, fmt.Errorf("learn what the sandbox is: %w", err)
	}
	// The lock tells others that the sandbox lives, so that it must not live on
	// in what is started here.
	unix.CloseOnExec(specFD + 1)
	if err := enterMounts(s); err != nil {
		return s, err
	}
	if err := enterNetwork(s); err != nil {
		return s, err
	}
	return s, enterCgroup(s.Cgroup())
}

// PID is the number of the process 1 of the sandbox, as the machine sees it; 0
// if it does not run.
func PID(dir string) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, lockFile)); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	lock, free, err := tryLock(dir)
	if err != nil {
		return 0, err
	}
	if free {
		return 0, lock.Close()
	}
	content, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0, fmt.Errorf("find the process of the sandbox: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("find the process of the sandbox: %w", err)
	}
	return pid, nil
}

// tryLock takes the lock that process 1 holds as long as it lives. The kernel
// lets it go with the process, so that it cannot be stale, as a number can.
func tryLock(dir string) (lock *os.File, free bool, err error) {
	lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, false, fmt.Errorf("open the lock of the sandbox: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, false, lock.Close()
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("take the lock of the sandbox: %w", err), lock.Close())
	}
	return lock, true, nil
}

// Stop ends process 1, and with it everything in the sandbox: first politely,
// after grace by force.
func Stop(dir string, grace time.Duration) error {
	pid, err := PID(dir)
	if err != nil || pid == 0 {
		return err
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 20 * time.Second}} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the process %d of the sandbox: %w", pid, err)
		}
		for deadline := time.Now().Add(step.wait); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if now, err := PID(dir); err != nil || now == 0 {
				return err
			}
		}
	}
	return fmt.Errorf("the process %d of the sandbox does not end; the kernel may be waiting for a disk", pid)
}

// Clean removes what the end of process 1 leaves on the machine, except the state
// directory: interface and cgroups.
func Clean(id string) error {
	return errors.Join(disconnect(interfaceName(id)), removeCgroup("sublet-"+id, 20*time.Second))
}

// Leftovers names everything that is still on the machine, for whoever claims
// that nothing is.
func Leftovers(id, dir string) ([]string, error) {
	var left []string
	if exists(interfaceName(id)) {
		left = append(left, "interface "+interfaceName(id))
	}
	all, err := mountedHierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		path := filepath.Join(h.path, "sublet-"+id)
		if _, err := os.Stat(path); err == nil {
			left = append(left, "cgroup "+path)
		}
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return nil, err
	}
	for _, point := range mounts {
		left = append(left, "mount "+point)
	}
	if _, err := os.Stat(dir); err == nil {
		left = append(left, "directory "+dir)
	}
	return left, nil
}

// mountsBelow lists what the machine itself has mounted below dir.
func mountsBelow(dir string) ([]string, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	return points, nil
}

// RemoveDir removes the state directory, unless something is mounted below it:
// that may be somebody's data.
func RemoveDir(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is not removed, as there are mounts below it: unmount %s", dir, strings.Join(mounts, ", "))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the state of the local host: %w", err)
	}
	return nil
}
