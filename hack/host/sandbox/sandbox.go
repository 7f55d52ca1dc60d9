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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
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
	Link     Link
	// ServiceCIDR is the range of the cluster's Services.
	ServiceCIDR netip.Prefix
	// Nodes of the cluster. The first is the sandbox itself, the others are in it.
	Nodes []Node
}

// Node is what a sandbox must know of a node.
type Node struct {
	Name string
	// Pods is the range of its pods' addresses.
	Pods netip.Prefix
}

// Cgroup is the name of the parent cgroup of a node, counted from 0, in each
// hierarchy.
func (s Spec) Cgroup(node int) string {
	name := "sublet-" + s.ID
	if node > 0 {
		name += "/" + s.Nodes[node].Name
	}
	return name
}

// NodeDir is the state directory of a node.
func (s Spec) NodeDir(node int) string {
	if node == 0 {
		return s.Dir
	}
	return filepath.Join(s.Dir, s.Nodes[node].Name)
}

const (
	lockFile = "init.lock"
	pidFile  = "init.pid"
	specFile = "sandbox.json"
	logFile  = "log/init.log"
	// patience is how long ended processes may take to leave a cgroup.
	patience = 20 * time.Second
	// specFD and lockFD are the descriptors that process 1 inherits.
	specFD = 3
)

// Namespaces are those that a node has of its own.
const Namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

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
	if err := s.save(); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of the sandbox: %w", err)
	}
	defer log.Close()
	if err := inotify().raise(s.ID); err != nil {
		return err
	}
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
		Cloneflags: Namespaces,
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
	if err := enterMounts(s, 0); err != nil {
		return s, err
	}
	if err := enterNetwork(s); err != nil {
		return s, err
	}
	return s, enterCgroup(s.Cgroup(0))
}

// EnterNode makes the calling process, which a process of the sandbox of dir has
// started in Namespaces, ready to be a further node of it.
func EnterNode(dir, name string) (Spec, int, error) {
	s, err := load(dir)
	if err != nil {
		return s, 0, err
	}
	node := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == name })
	if node < 1 {
		return s, 0, fmt.Errorf("the sandbox of %s has no further node %q", dir, name)
	}
	// As long as /proc is that of the first node.
	first, err := netns.GetFromPath("/proc/1/ns/net")
	if err != nil {
		return s, 0, fmt.Errorf("find the first node's network: %w", err)
	}
	defer first.Close()
	if err := enterMounts(s, node); err != nil {
		return s, 0, err
	}
	if err := joinNode(s, node, first); err != nil {
		return s, 0, err
	}
	if err := enterNodeNetwork(s, node); err != nil {
		return s, 0, err
	}
	// Its last life may have left cgroups of pods, in which the kubelet looks for
	// containers, patiently, before it does anything else.
	if err := removeCgroup(s.Cgroup(node), patience); err != nil {
		return s, 0, err
	}
	return s, node, enterCgroup(s.Cgroup(node))
}

// Extend adds nodes to a sandbox that runs, and returns what it is then. Somebody
// in it must let them enter.
func Extend(dir string, nodes ...Node) (Spec, error) {
	s, err := load(dir)
	if err != nil {
		return s, err
	}
	before := len(s.Nodes)
	s.Nodes = append(s.Nodes, nodes...)
	if err := s.save(); err != nil {
		return s, err
	}
	for i := range before {
		// Written in place, so that those who have it mounted see it.
		if err := os.WriteFile(filepath.Join(s.NodeDir(i), "etc/hosts"), []byte(s.hosts()), 0o644); err != nil {
			return s, fmt.Errorf("tell %s of further nodes: %w", s.Nodes[i].Name, err)
		}
	}
	return s, nil
}

func (s Spec) save() error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write what the sandbox is: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, specFile), content, 0o644); err != nil {
		return fmt.Errorf("write what the sandbox is: %w", err)
	}
	return nil
}

func load(dir string) (Spec, error) {
	var s Spec
	content, err := os.ReadFile(filepath.Join(dir, specFile))
	if err != nil {
		return s, fmt.Errorf("read what the sandbox is: %w", err)
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return s, fmt.Errorf("read what the sandbox is: %w", err)
	}
	return s, nil
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
// directory: interface, cgroups and a raised limit.
func Clean(id string) error {
	return errors.Join(disconnect(interfaceName(id)), removeCgroup("sublet-"+id, patience), inotify().lower(id))
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
	if _, err := os.Stat(inotify().mark(id)); err == nil {
		left = append(left, "raised limit "+inotify().file)
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
