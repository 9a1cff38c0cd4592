// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "launcher.h"

#include "cpu_process.h"
#include "engine.h"
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Address space needed to open the engine: a buffer of 1 GiB and some reserve.
#define ENGINE_MEMORY ((size_t)1152 << 20)

enum request_kind { VERSION, LAUNCH, HAS_ENDED, END };
struct request {
    enum request_kind kind;
    pid_t process;
    char library[CUC_MAX_NAME];
};
// Reply to all requests except END.
struct reply {
    // VERSION: as cuc_library_version; LAUNCH: the process identifier or a negative errno; HAS_ENDED: 1 if it has ended
    int32_t value;
    int32_t status;
};

// MARK: in the launcher

// Unmaps all shared memory of the monitor: guest RAM, channels, io_uring rings.
static void unmap_shared_memory(void) {
    struct range {
        unsigned long long start, end;
    } *ranges = NULL;
    size_t count = 0, room = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) return;
    char line[8192];
    while (fgets(line, sizeof line, maps)) {
        struct range range;
        char flags[5];
        if (sscanf(line, "%llx-%llx %4s", &range.start, &range.end, flags) != 3 || flags[3] != 's') continue;
        if (count == room) {
            room = room ? room * 2 : 64;
            struct range *more = realloc(ranges, room * sizeof *ranges);
            if (more == NULL) break;
            ranges = more;
        }
        ranges[count++] = range;
    }
    fclose(maps);
    for (size_t i = 0; i < count; i++)
        munmap((void *)(uintptr_t)ranges[i].start, (size_t)(ranges[i].end - ranges[i].start));
    free(ranges);
}

// Closes all descriptors except one; 0 to 2 become /dev/null.
static void close_descriptors(int kept) {
    if (kept > 0) syscall(SYS_close_range, 0, kept - 1, 0);
    syscall(SYS_close_range, kept + 1, ~0u, 0);
    int nowhere = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        if (i != kept && nowhere >= 0 && nowhere != i) dup2(nowhere, i);
    if (nowhere > 2 && nowhere != kept) close(nowhere);
}

static void detach_from_monitor(int socket) {
    // Ctrl-C and hang-ups of the terminal are for the monitor, which then ends this process.
    setsid();
    for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_descriptors(socket);
    unmap_shared_memory();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "cpu launcher");
}

// Opens each library once. Returns NULL if it cannot be opened.
static const struct cuc_library *library_named(const char *name) {
    static struct entry {
        const struct cuc_library *library;
        struct entry *next;
    } *first;
    for (struct entry *entry = first; entry != NULL; entry = entry->next)
        if (strcmp(entry->library->name, name) == 0) return entry->library;
    const struct cuc_library *library = cuc_library_open(name);
    struct entry *entry = library != NULL ? malloc(sizeof *entry) : NULL;
    if (entry == NULL) return NULL;
    *entry = (struct entry){library, first};
    first = entry;
    return library;
}

// An engine that cannot allocate memory calls exit(), which must not end the launcher.
static bool has_memory_for_engine(void) {
    void *room = mmap(NULL, ENGINE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return false;
    munmap(room, ENGINE_MEMORY);
    return true;
}

// The engine that CPU processes inherit: opened once and copied by fork. NULL if each process must open its own.
static struct engine *common_engine(const struct cuc_library *library) {
    static struct engine *engine;
    static const struct cuc_library *opened;
    if (engine == NULL && library != NULL && has_memory_for_engine()) {
        engine = engine_open(library);
        opened = library;
    }
    return opened == library ? engine : NULL;
}

static pid_t fork_cpu(const struct cuc_library *library, int channel, int socket, int control) {
    if (library == NULL) return -ENOENT;
    struct engine *engine = common_engine(library);
    pid_t launcher = getpid(), process = fork();
    if (process != 0) return process < 0 ? -errno : process;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) _exit(0);
    prctl(PR_SET_NAME, "software cpu");
    close(control);
    if (engine == NULL) engine = engine_open(library);
    if (engine == NULL) _exit(CUC_EXIT_NO_ENGINE);
    cuc_cpu_process(engine, channel, socket);
}

static int32_t version_of(const struct cuc_library *library) { return library != NULL ? (int32_t)library->version : 0; }

static struct reply reap(pid_t process, bool ends) {
    struct reply reply = {1, SIGKILL};
    pid_t ended = waitpid(process, &reply.status, WNOHANG);
    // Kill only children of this launcher: their identifiers cannot have been reused yet.
    if (ended == 0 && ends) {
        kill(process, SIGKILL);
        ended = waitpid(process, &reply.status, 0);
    }
    reply.value = ended != 0;
    if (ended < 0) reply.status = SIGKILL;
    return reply;
}

_Noreturn static void launcher_main(int control, const char *library) {
    detach_from_monitor(control);
    common_engine(library_named(library));  // in parallel with the monitor, which sets up the VM
    struct request request;
    int descriptors[2];
    while (cuc_receive(control, &request, sizeof request, descriptors, 2)) {
        struct reply reply = {0, 0};
        request.library[sizeof request.library - 1] = 0;
        switch (request.kind) {
        case VERSION: reply.value = version_of(library_named(request.library)); break;
        case LAUNCH:
            reply.value = fork_cpu(library_named(request.library), descriptors[0], descriptors[1], control);
            break;
        case HAS_ENDED: reply = reap(request.process, false); break;
        case END: reap(request.process, true); continue;
        }
        for (int i = 0; i < 2; i++)
            if (descriptors[i] >= 0) close(descriptors[i]);
        if (!cuc_send(control, &reply, sizeof reply, NULL, 0)) break;
    }
    _exit(0);
}

// MARK: in the monitor

// Guards `control` and `owner`, and is held from a request to its reply.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int control = -1;
// The process that forked the launcher. A forked child of the monitor needs a launcher of its own.
static pid_t owner;

static int start_locked(const char *library) {
    if (control >= 0 && owner == getpid()) return 0;
    if (control >= 0) close(control);
    control = -1;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return errno;
    pid_t launcher = fork();
    if (launcher == 0) launcher_main(pair[1], library);
    int error = launcher < 0 ? errno : 0;
    close(pair[1]);
    if (error != 0) {
        close(pair[0]);
        return error;
    }
    control = pair[0];
    owner = getpid();
    return 0;
}

int cuc_launcher_start(const char *library) {
    pthread_mutex_lock(&lock);
    int error = start_locked(library);
    pthread_mutex_unlock(&lock);
    return error;
}

// Sends a request to the launcher. Returns false if the launcher is gone; the next request starts another one.
static bool ask_locked(const struct request *request, const int *descriptors, int count, struct reply *reply) {
    if (cuc_send(control, request, sizeof *request, descriptors, count)
        && cuc_receive(control, reply, sizeof *reply, NULL, 0))
        return true;
    close(control);
    control = -1;
    return false;
}

// Sends a request about a library. Returns the value of the reply, or a negative errno.
static int32_t ask_about(const char *library, enum request_kind kind, const int *descriptors, int count) {
    struct request request = {.kind = kind};
    if (strlen(library) >= sizeof request.library) return -ENAMETOOLONG;
    strcpy(request.library, library);
    struct reply reply = {0, 0};
    pthread_mutex_lock(&lock);
    int error = 0;
    // A launcher that was killed is replaced once.
    for (int attempt = 0; attempt < 2; attempt++) {
        error = start_locked(library);
        if (error != 0 || ask_locked(&request, descriptors, count, &reply)) break;
        error = ECHILD;
    }
    pthread_mutex_unlock(&lock);
    return error != 0 ? -error : reply.value;
}

int32_t cuc_library_version(const char *library) { return ask_about(library, VERSION, NULL, 0); }

pid_t cuc_launch(const char *library, int channel, int socket) {
    return ask_about(library, LAUNCH, (int[]){channel, socket}, 2);
}

bool cuc_has_ended(pid_t process, int *status) {
    struct request request = {.kind = HAS_ENDED, .process = process};
    struct reply reply = {0, 0};
    pthread_mutex_lock(&lock);
    // Without its launcher, a CPU process has been killed by SIGKILL.
    bool is_there = control >= 0 && owner == getpid() && ask_locked(&request, NULL, 0, &reply);
    pthread_mutex_unlock(&lock);
    *status = is_there ? reply.status : SIGKILL;
    return !is_there || reply.value != 0;
}

void cuc_end(pid_t process) {
    struct request request = {.kind = END, .process = process};
    pthread_mutex_lock(&lock);
    if (control >= 0 && owner == getpid()) cuc_send(control, &request, sizeof request, NULL, 0);
    pthread_mutex_unlock(&lock);
}
