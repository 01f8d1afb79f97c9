# Becomes a host: runs as process 1 of new mount, UTS, IPC and PID namespaces and
# ends as sshd. Everything it mounts and writes is in memory, and gone with it.
#   $1 host name; $2 folder with the system's files, / for this machine's;
#   standard input: a tar of the host's own files
set -eu
umask 022
exec 2>&1

# From here on nothing that is mounted is seen outside.
mount --make-rprivate /
exec 3<"$2" # may be below /tmp, which is about to go
mount -t tmpfs -o mode=755,size=512m host /tmp
mkdir /tmp/root
layer() { # layer FOLDER: the system's files, with ours written on top of them
	mkdir -p "/tmp/layers/$1/upper" "/tmp/layers/$1/work"
	mount -t overlay -o "lowerdir=/proc/self/fd/3/$1,upperdir=/tmp/layers/$1/upper,workdir=/tmp/layers/$1/work" overlay "/tmp/root/$1"
}
layer .
for dir in usr var etc; do # where they are file systems of their own
	if mountpoint -q "$2/$dir"; then layer "$dir"; fi
done
exec 3<&-

# The system's programs, but nobody's files: all else at the top is empty.
cd /tmp/root
for dir in *; do
	case $dir in
	bin | etc | lib | lib32 | lib64 | libx32 | sbin | usr | var) ;;
	*) if [ -d "$dir" ] && [ ! -L "$dir" ]; then mount -t tmpfs -o mode=755,size=64m host "$dir"; fi ;;
	esac
done
mkdir -p dev home proc root run tmp
mount -t proc proc proc
for device in null zero full random urandom tty; do
	: >"dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
chmod 1777 tmp dev/shm
chmod 700 root

tar -x -p -f -
exec </dev/null
echo "$1" >/proc/sys/kernel/hostname

# Leave the machine's own root for good, and with it the rights that could lead
# back there: root on this host is root of this host only.
mkdir machine
pivot_root . machine
cd /
umount -l machine
rmdir machine
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \
	--bounding-set -all,+chown,+dac_override,+dac_read_search,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+setfcap,+net_bind_service,+sys_chroot,+sys_resource,+audit_write \
	--inh-caps -all \
	/usr/sbin/sshd -D -e -f /etc/ssh/sshd_config
