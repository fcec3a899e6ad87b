/* A training step as a program: reads labelled images, trains epoch by epoch, writes the weights.
   network.h, made by the compiler, declares the network's functions and its tables. */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "args.h"
#include "dataset.h"
#include "error.h"
#include "files.h"
#include "memory.h"
#include "network.h"
#include "safetensors.h"
#include "shuffle.h"

enum {
    IMAGES,
    LABELS,
    TEST_IMAGES,
    TEST_LABELS,
    EPOCHS,
    BATCH,
    RATE,
    SEED,
    THREADS,
    WEIGHTS,
    OUT,
    OPTION_COUNT
};
enum { DEFAULT_EPOCHS = 10, MAX_EPOCHS = 1000000, MAX_THREADS = 1024, EXIT_INTERRUPTED = 130 };

/* The command line, read. */
typedef struct {
    const char *images, *labels, *test_images, *test_labels, *weights, *out;
    unsigned epochs;
    int threads;
    float rate;
    uint64_t seed;
} settings;

/* What a call of the network takes besides the learning rate: one batch, parameters, memory, threads. */
typedef struct {
    float *images;
    int32_t *labels;
    void *params, *workspace;
    cnnc_pool *pool;
} trainer;

/* Means over the images an epoch has seen. */
typedef struct {
    double loss, accuracy;
} score;

static volatile sig_atomic_t interrupted = 0;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

/* The first Ctrl-C asks to stop; a second one ends the program at once. */
static void catch_interrupt(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
}

static void print_help(void) {
    char one[SHAPE_TEXT], many[SHAPE_TEXT], scale[SCALING_TEXT];
    const tensor *image = &network_inputs[0];
    printf("%s: trains a convolutional network, compiled by cnnc %s for %s\n", NETWORK_NAME, NETWORK_VERSION,
           NETWORK_TARGET);
    printf("usage: %s --images I --labels L --out W.safetensors [option ...]\n\n", error_program_name());
    printf("  input       %s, uint8 or float32 %s; a uint8 value v is read as %s\n", image->name,
           shape_text(one, "", image->shape, image->rank), scaling_text(scale, network_scalings[0]));
    printf("  labels      0 to %d\n", NETWORK_CLASSES - 1);
    printf("  outputs     loss and accuracy, a line per epoch; the trained weights\n");
    printf("  parameters  %zu\n  memory      %zu bytes of parameters and optimizer state, %zu of workspace\n",
           (size_t)NETWORK_PARAMETERS, (size_t)NETWORK_PARAM_BYTES, (size_t)NETWORK_WORKSPACE_BYTES);
    printf("\n  --images I, --labels L   %s and (N,), as .npy or IDX files, plain or compressed by gzip\n",
           shape_text(many, "N", image->shape, image->rank));
    printf("  --test-images TI, --test-labels TL   measure the accuracy on these after every epoch\n");
    printf("  --epochs E               how often to go through all images (%d)\n", DEFAULT_EPOCHS);
    printf("  --batch B                images per step: %d, fixed when the program was built\n",
           NETWORK_BATCH);
    printf("  --lr R                   learning rate%s (%.9g)\n",
           NETWORK_LINEAR_SCHEDULE ? " of the first epoch; it falls linearly" : "",
           (double)NETWORK_LEARNING_RATE);
    printf("  --seed S                 of the images' order (0)\n");
    printf("  --threads N              use N threads (1); the result is the same for any number\n");
    printf("  --weights W              begin with these weights instead of the built-in ones\n");
    printf("  --out W.safetensors      the file for the trained weights\n");
}

/* What must be given, goes together or cannot be chosen any more. */
static void check_options(const option o[OPTION_COUNT]) {
    const int needed[] = {IMAGES, LABELS, OUT};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (o[needed[i]].value == NULL) fail_usage("%s is needed", o[needed[i]].name);
    }
    if ((o[TEST_IMAGES].value == NULL) != (o[TEST_LABELS].value == NULL)) {
        fail_usage("--test-images and --test-labels go together");
    }
    uint64_t batch = args_integer(&o[BATCH], NETWORK_BATCH, 1, INT32_MAX);
    if (batch != NETWORK_BATCH) {
        fail_usage("--batch %s: this program was built for batches of %d; build it again for another",
                   o[BATCH].value, NETWORK_BATCH);
    }
}

static settings read_settings(int argc, char **argv) {
    option o[OPTION_COUNT] = {
        [IMAGES] = {"--images", NULL},
        [LABELS] = {"--labels", NULL},
        [TEST_IMAGES] = {"--test-images", NULL},
        [TEST_LABELS] = {"--test-labels", NULL},
        [EPOCHS] = {"--epochs", NULL},
        [BATCH] = {"--batch", NULL},
        [RATE] = {"--lr", NULL},
        [SEED] = {"--seed", NULL},
        [THREADS] = {"--threads", NULL},
        [WEIGHTS] = {"--weights", NULL},
        [OUT] = {"--out", NULL},
    };
    args_parse(argc, argv, o, OPTION_COUNT, NULL, 0, "");
    check_options(o);
    return (settings){
        o[IMAGES].value,
        o[LABELS].value,
        o[TEST_IMAGES].value,
        o[TEST_LABELS].value,
        o[WEIGHTS].value,
        o[OUT].value,
        .epochs = (unsigned)args_integer(&o[EPOCHS], DEFAULT_EPOCHS, 1, MAX_EPOCHS),
        .threads = (int)args_integer(&o[THREADS], 1, 1, MAX_THREADS),
        .rate = args_float(&o[RATE], NETWORK_LEARNING_RATE),
        .seed = args_integer(&o[SEED], 0, 0, UINT64_MAX),
    };
}

/* The built-in parameters, or the given weights with the optimizer's state as it begins. */
static void *load_params(const char *weights, void *workspace) {
    void *params = memory_aligned(NETWORK_PARAM_BYTES);
    if (weights == NULL) {
        memcpy(params, NETWORK_PARAMS, NETWORK_PARAM_BYTES);
        return params;
    }
    float *values = safetensors_read(weights, network_weights, NETWORK_WEIGHTS);
    memset(params, 0, NETWORK_PARAM_BYTES);
    NETWORK_PACK(values, params, workspace);
    free(values);
    return params;
}

static trainer create_trainer(const settings *s) {
    trainer t = {
        .images = memory_array(NETWORK_BATCH * network_inputs[0].size, sizeof(float)),
        .labels = memory_array(NETWORK_BATCH, sizeof(int32_t)),
        .workspace = memory_aligned(NETWORK_WORKSPACE_BYTES),
        .pool = s->threads > 1 ? NETWORK_POOL_CREATE(s->threads) : NULL,
    };
    t.params = load_params(s->weights, t.workspace);
    if (s->threads > 1 && t.pool == NULL) fail(NULL, "cannot start %d threads", s->threads);
    return t;
}

static void free_trainer(trainer *t) {
    if (t->pool != NULL) NETWORK_POOL_DESTROY(t->pool);
    free(t->workspace);
    free(t->params);
    free(t->labels);
    free(t->images);
}

static void fill_row(trainer *t, const dataset *d, size_t row, size_t index) {
    dataset_image(d, index, network_scalings[0], t->images + row * network_inputs[0].size);
    t->labels[row] = d->labels[index];
}

/* Number of correct images in the batch that has been filled in. */
static double count_correct(trainer *t) {
    float loss = 0.0f, correct = 0.0f;
    NETWORK_EVALUATE(t->images, t->labels, &loss, &correct, t->params, t->workspace, t->pool);
    return (double)correct;
}

/* Number of correct images among the last `rows`, fewer than a batch, from `first` on. The batch is
   filled up with copies of its first image, whose result does not depend on its row, and a second
   batch of nothing else tells whether that image counts, so whether its copies must be subtracted. */
static double count_remainder(trainer *t, const dataset *d, size_t first, size_t rows) {
    for (size_t row = 0; row < NETWORK_BATCH; row++) fill_row(t, d, row, row < rows ? first + row : first);
    double correct = count_correct(t);
    for (size_t row = 1; row < NETWORK_BATCH; row++) fill_row(t, d, row, first);
    bool is_first_correct = count_correct(t) > 0.0;
    return is_first_correct ? correct - (double)(NETWORK_BATCH - rows) : correct;
}

/* The share of the images that the network gets right: all of them count, once each. */
static double test_accuracy(trainer *t, const dataset *d) {
    double correct = 0.0;
    size_t first = 0;
    for (; d->count - first >= NETWORK_BATCH; first += NETWORK_BATCH) {
        for (size_t row = 0; row < NETWORK_BATCH; row++) fill_row(t, d, row, first + row);
        correct += count_correct(t);
    }
    if (first < d->count) correct += count_remainder(t, d, first, d->count - first);
    return correct / (double)d->count;
}

/* One step per full batch in the given order; what remains is left out. Stops early when interrupted. */
static score train_epoch(trainer *t, const dataset *d, const shuffle *order, float rate) {
    double loss_sum = 0.0, correct_sum = 0.0;
    size_t batches = d->count / NETWORK_BATCH;
    for (size_t batch = 0; batch < batches && !interrupted; batch++) {
        for (size_t row = 0; row < NETWORK_BATCH; row++)
            fill_row(t, d, row, order->order[batch * NETWORK_BATCH + row]);
        float loss = 0.0f, correct = 0.0f;
        NETWORK_STEP(t->images, t->labels, &rate, &loss, &correct, t->params, t->workspace, t->pool);
        loss_sum += (double)loss;
        correct_sum += (double)correct;
    }
    return (score){loss_sum / (double)batches, correct_sum / (double)(batches * NETWORK_BATCH)};
}

static double seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The learning rate of an epoch, counted from 0. */
static float epoch_rate(const settings *s, unsigned epoch) {
    if (!NETWORK_LINEAR_SCHEDULE) return s->rate;
    return (float)((double)s->rate * (1.0 - (double)epoch / (double)s->epochs));
}

/* Trains and keeps the weights of the last finished epoch in `weights`; returns the epochs finished. */
static unsigned train(trainer *t, const settings *s, const dataset *d, const dataset *test, float *weights) {
    shuffle order = shuffle_create(s->seed, d->count);
    unsigned finished = 0;
    while (finished < s->epochs) {
        double start = seconds();
        shuffle_epoch(&order);
        score result = train_epoch(t, d, &order, epoch_rate(s, finished));
        if (interrupted) break;
        finished++;
        NETWORK_UNPACK(t->params, weights);
        printf("epoch %u/%u  loss %.4f  accuracy %.2f %%", finished, s->epochs, result.loss,
               100.0 * result.accuracy);
        if (test != NULL) printf("  test %.2f %%", 100.0 * test_accuracy(t, test));
        printf("  %.2f s\n", seconds() - start);
        (void)fflush(stdout);
    }
    shuffle_free(&order);
    return finished;
}

static dataset read_training_set(const settings *s) {
    dataset d = dataset_read(s->images, s->labels, &network_inputs[0], NETWORK_CLASSES);
    if (d.count < NETWORK_BATCH) {
        fail(s->images, "holds %zu images, fewer than one batch of %d", d.count, NETWORK_BATCH);
    }
    return d;
}

static int run_program(const settings *s) {
    if (!NETWORK_SUPPORTED())
        fail(NULL, "this processor lacks instructions of %s, its target", NETWORK_TARGET);
    file_check_writable(s->out);
    dataset d = read_training_set(s), test = {0};
    bool has_test = s->test_images != NULL;
    if (has_test) test = dataset_read(s->test_images, s->test_labels, &network_inputs[0], NETWORK_CLASSES);
    trainer t = create_trainer(s);
    float *weights = memory_array(NETWORK_PARAMETERS, sizeof *weights);
    catch_interrupt();
    unsigned finished = train(&t, s, &d, has_test ? &test : NULL, weights);
    if (finished == 0) fail(s->out, "interrupted before the end of the first epoch: nothing was written");
    safetensors_write(s->out, network_weights, NETWORK_WEIGHTS, weights);
    if (finished < s->epochs) printf("interrupted: %s holds the weights of epoch %u\n", s->out, finished);
    free(weights);
    free_trainer(&t);
    dataset_free(&d);
    dataset_free(&test);
    return finished < s->epochs ? EXIT_INTERRUPTED : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    error_program(argv[0]);
    if (args_want_help(argc, argv)) {
        print_help();
        return EXIT_SUCCESS;
    }
    settings s = read_settings(argc, argv);
    return run_program(&s);
}
