/* SPDX-License-Identifier: MIT */
/* The steps of one actor of a parallel block. */
struct actor {
	const char *name;
	void (*act)(void);
	const pid_t *process;	/* of a child, which acts for its thread */
};

/*
 * How the actors of a run start: each after a random time, or on one CPU, where the intruder preempts the victim
 * `delay` nanoseconds after it began.
 */
struct schedule {
	bool is_preempted;
	int victim, intruder;
	uint64_t delay;
};

static struct schedule schedule;

static uint64_t random_number(void)
{
	static uint64_t state = 0x9e3779b97f4a7c15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

struct racer {
	const struct actor *actor;
	pthread_barrier_t *start;
	int timer;		/* starts the intruder */
	uint64_t delay;		/* turns of a loop; for a victim nanoseconds until the intruder acts */
	int priority;
	pid_t id;
	uint64_t duration;	/* of the steps, in nanoseconds */
	pthread_t thread;
};

static void *act_at_random_time(void *argument)
{
	struct racer *racer = argument;

	pthread_barrier_wait(racer->start);
	if (racer->delay % 4 == 1)
		sched_yield();
	if (racer->delay % 4 > 1)
		for (uint64_t turn = racer->delay >> 8; turn; turn--)
			__asm__ __volatile__("" : : : "memory");
	racer->actor->act();
	return NULL;
}

static void race_at_random_times(const struct actor *actors, int count)
{
	struct racer racers[16] = { 0 };
	pthread_barrier_t start;

	pthread_barrier_init(&start, NULL, count);
	for (int i = 0; i < count; i++) {
		uint64_t draw = random_number(), most = 64ULL << 3 * ((draw >> 4) % 3);

		racers[i].actor = &actors[i];
		racers[i].start = &start;
		racers[i].delay = (draw >> 8) % most << 8 | draw % 4;
		if (pthread_create(&racers[i].thread, NULL, act_at_random_time, &racers[i]))
			fail("pthread_create");
	}
	for (int i = 0; i < count; i++)
		pthread_join(racers[i].thread, NULL);
	pthread_barrier_destroy(&start);
}

static void set_priority(pid_t thread, int priority)
{
	struct sched_param parameter = { .sched_priority = priority };

	sched_setscheduler(thread, priority ? SCHED_FIFO : SCHED_OTHER, &parameter);
}

static void bind_to_first_cpu(pid_t thread)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(thread, sizeof(cpus), &cpus);
}

#define VICTIM_PRIORITY 10

#define INTRUDER_PRIORITY 50

/*
 * A vCPU enters again and again while a conversion is in progress, and so keeps a victim of lower priority from ending
 * it. The watching thread gives each of the two precedence in turn.
 */
#define WATCHER_PRIORITY 80

static void wait_for(const struct racer *racer, const struct racer *victim, const struct racer *intruder)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	for (int turn = 0;; turn++) {
		limit.tv_nsec += 20000000;
		limit.tv_sec += limit.tv_nsec / 1000000000;
		limit.tv_nsec %= 1000000000;
		if (pthread_timedjoin_np(racer->thread, NULL, &limit) == 0)
			return;
		set_priority(turn % 2 ? intruder->id : victim->id, INTRUDER_PRIORITY + 10);
		set_priority(turn % 2 ? victim->id : intruder->id, VICTIM_PRIORITY);
	}
}

/* The intruder waits for its timer, which the victim arms when it begins. */
static void *act_on_one_cpu(void *argument)
{
	struct racer *racer = argument;
	struct itimerspec time = { .it_value.tv_sec = racer->delay / 1000000000 };
	uint64_t expirations, begun;

	time.it_value.tv_nsec = racer->delay % 1000000000 + !racer->delay;
	bind_to_first_cpu(0);
	set_priority(0, racer->priority);
	if (racer->actor->process) {
		bind_to_first_cpu(*racer->actor->process);
		set_priority(*racer->actor->process, racer->priority);
	}
	racer->id = syscall(SYS_gettid);
	pthread_barrier_wait(racer->start);
	begun = now();
	if (racer->priority == VICTIM_PRIORITY)
		timerfd_settime(racer->timer, 0, &time, NULL);
	else if (read(racer->timer, &expirations, sizeof(expirations)) < 0)
		fail("timerfd: %s", strerrorname_np(errno));
	racer->actor->act();
	racer->duration = now() - begun;
	return NULL;
}

/* Of the victim's steps in the last run, in nanoseconds. */
static uint64_t victim_duration;

/* Actors that are neither victim nor intruder act afterwards. */
static void race_on_one_cpu(const struct actor *actors, int count)
{
	struct racer victim = { .actor = &actors[schedule.victim], .priority = VICTIM_PRIORITY };
	struct racer intruder = { .actor = &actors[schedule.intruder], .priority = INTRUDER_PRIORITY };
	pthread_barrier_t start;

	pthread_barrier_init(&start, NULL, 2);
	victim.delay = schedule.delay;
	victim.start = intruder.start = &start;
	victim.timer = intruder.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (pthread_create(&intruder.thread, NULL, act_on_one_cpu, &intruder) ||
	    pthread_create(&victim.thread, NULL, act_on_one_cpu, &victim))
		fail("pthread_create");
	wait_for(&victim, &victim, &intruder);
	wait_for(&intruder, &victim, &intruder);
	pthread_barrier_destroy(&start);
	close(victim.timer);
	for (int i = 0; i < count; i++)
		if (i != schedule.victim && i != schedule.intruder)
			actors[i].act();
	victim_duration = victim.duration;
}

static void race(const struct actor *actors, int count)
{
	if (schedule.is_preempted && schedule.victim < count && schedule.intruder < count)
		race_on_one_cpu(actors, count);
	else
		race_at_random_times(actors, count);
}

/*
 * Puts a file back: all pages in one state, and none allocated. The pages of released holds can be in use a little
 * longer.
 */
static void restore_file(int file, uint64_t size, uint64_t attributes)
{
	for (int attempt = 0; attempt < 1000; attempt++) {
		punch_hole(file, 0, size);
		if (!is(convert(file, 0, size, attributes), "EAGAIN*"))
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	fail("a page is in use although nothing holds it");
}

/* How often an outcome was seen, and the first schedule that led to it. */
struct tally {
	char text[200];
	bool is_permitted;
	unsigned long count;
	struct schedule first;
};

static struct tally tallies[256];

/* Counts the outcome of a block. */
static void count_outcome(const char *const *names, const char *const *results, size_t count, bool is_permitted)
{
	char text[sizeof(tallies->text)] = "";
	struct tally *tally = tallies;

	for (size_t i = 0; i < count; i++)
		if (is(results[i], "ENOTTY"))
			skip("this kernel does not have a call of the test: %s", names[i]);
	for (size_t i = 0, end = 0; i < count && end < sizeof(text); i++)
		end += snprintf(text + end, sizeof(text) - end, "%s%s = %s", i ? ", " : "", names[i], results[i]);
	while (tally->count && strcmp(tally->text, text) && tally < tallies + COUNT(tallies) - 1)
		tally++;
	if (!tally->count) {
		memcpy(tally->text, text, sizeof(text));
		tally->is_permitted = is_permitted;
		tally->first = schedule;
	}
	tally->count++;
}

/* Prints how often each outcome was seen. One that is not permitted fails the test. */
static void report(const struct actor *actors)
{
	const struct tally *wrong = NULL;

	for (const struct tally *tally = tallies; tally < tallies + COUNT(tallies) && tally->count; tally++) {
		printf("# %8lu  %s%s\n", tally->count, tally->text, tally->is_permitted ? "" : "  FORBIDDEN");
		if (!tally->is_permitted && !wrong)
			wrong = tally;
	}
	if (wrong && wrong->first.is_preempted)
		printf("# %s was preempted %llu ns after it began, by %s\n", actors[wrong->first.victim].name,
		       (unsigned long long)wrong->first.delay, actors[wrong->first.intruder].name);
	if (wrong)
		fail("forbidden: %s", wrong->text);
	pass();
}

/* Whether the main thread may watch a run on one CPU, for which it needs the highest priority. */
static bool begin_schedules(void)
{
	struct sched_param fifo = { .sched_priority = WATCHER_PRIORITY };
	bool is_permitted = sched_setscheduler(0, SCHED_FIFO, &fifo) == 0;

	if (is_permitted)
		bind_to_first_cpu(0);
	else
		printf("# no preemption at chosen places: SCHED_FIFO: %s\n", strerrorname_np(errno));
	return is_permitted;
}

static void end_schedules(void)
{
	schedule.is_preempted = false;
	set_priority(0, 0);
}

/* Runs every pair of victim and intruder, with places from the beginning to the end of the victim's steps. */
static void sweep(int count, void (*run)(void), int places)
{
	if (!begin_schedules())
		return;
	for (int pair = 0; pair < count * count; pair++) {
		uint64_t length;

		if (pair / count == pair % count)
			continue;
		schedule = (struct schedule){ true, pair / count, pair % count, 1000000 };
		run();
		length = victim_duration + victim_duration / 4;
		for (int place = 0; place < places; place++) {
			schedule.delay = length * place / places + random_number() % (length / places + 1);
			run();
		}
	}
	end_schedules();
}

/* Runs a schedule that has shown an outcome elsewhere, and those around it. */
static void run_around(int victim, int intruder, uint64_t delay, void (*run)(void))
{
	if (!begin_schedules())
		return;
	for (int64_t distance = 0; distance <= 1024; distance += 16) {
		schedule = (struct schedule){ true, victim, intruder, delay + distance };
		run();
		schedule.delay = delay > (uint64_t)distance ? delay - distance : 0;
		run();
	}
	end_schedules();
}
