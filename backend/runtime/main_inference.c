/* A network as a program: `PROGRAM INPUT.npy OUTPUT.npy` computes the outputs of one image or of any
   number of them. network.h, made by the compiler, declares the network's functions and its tables. */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "array.h"
#include "error.h"
#include "files.h"
#include "memory.h"
#include "network.h"
#include "npy.h"
#include "safetensors.h"

enum {
    OPTION_THREADS,
    OPTION_WEIGHTS,
    OPTION_COUNT,
    FILE_COUNT = NETWORK_INPUTS + NETWORK_OUTPUTS,
    MAX_THREADS = 1024
};

/* The images of a run: all inputs have the batch axis, or none has it and `count` is 1. */
typedef struct {
    array inputs[NETWORK_INPUTS];
    float *outputs[NETWORK_OUTPUTS];
    size_t count;
    bool has_batch_axis;
} job;

static void print_tensor(const char *kind, const tensor *t, const char *types) {
    char one[SHAPE_TEXT], many[SHAPE_TEXT];
    printf("  %-7s %-12s %s %s, or %s for N images\n", kind, t->name, types,
           shape_text(one, "", t->shape, t->rank), shape_text(many, "N", t->shape, t->rank));
}

static void print_help(void) {
    printf("%s: a convolutional network, compiled by cnnc %s for %s\n", NETWORK_NAME, NETWORK_VERSION,
           NETWORK_TARGET);
    printf("usage: %s %s%s [--threads N] %s\n\n", error_program_name(), NETWORK_FILES,
           NETWORK_HAS_PARAMS ? "" : " --weights W.safetensors",
           NETWORK_HAS_PARAMS ? "[--weights W.safetensors]" : "");
    for (size_t i = 0; i < NETWORK_INPUTS; i++) {
        print_tensor("input", &network_inputs[i], "float32 or uint8");
        char text[SCALING_TEXT];
        printf("  %-7s %-12s a uint8 value v is read as %s\n", "", "",
               scaling_text(text, network_scalings[i]));
    }
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++) print_tensor("output", &network_outputs[i], "float32");
    printf("\n  parameters  %zu, %s\n", (size_t)NETWORK_PARAMETERS,
           NETWORK_HAS_PARAMS ? "inside the program" : "read from the file given with --weights");
    printf("  memory      %zu bytes of workspace\n", (size_t)NETWORK_WORKSPACE_BYTES);
    printf("  batch       up to %d at a time\n", NETWORK_BATCH);
    printf("\n  --threads N              use N threads (1); the result is the same for any number\n");
    printf("  --weights W.safetensors  %s\n",
           NETWORK_HAS_PARAMS ? "use these instead of those inside" : "the weights");
}

/* Reads one input and checks it against `wanted`; sets whether it has the batch axis, and its count. */
static array read_input(const char *path, const tensor *wanted, bool *has_batch_axis, size_t *count) {
    array a = npy_parse(path, file_read(path));
    bool has_type = a.type == ARRAY_UINT8 || a.type == ARRAY_FLOAT32;
    bool is_one = shape_equal(a.shape, a.rank, wanted->shape, wanted->rank);
    bool is_many = a.rank > 0 && shape_equal(a.shape + 1, a.rank - 1, wanted->shape, wanted->rank);
    if (!has_type || (!is_one && !is_many)) {
        char one[SHAPE_TEXT], many[SHAPE_TEXT], found[SHAPE_TEXT];
        fail(path, "expected float32 or uint8 of shape %s or %s, found %s of shape %s",
             shape_text(one, "", wanted->shape, wanted->rank),
             shape_text(many, "N", wanted->shape, wanted->rank), a.type_name,
             shape_text(found, "", a.shape, a.rank));
    }
    *has_batch_axis = is_many;
    *count = is_many ? a.shape[0] : 1;
    return a;
}

static job read_job(const char *const *files) {
    job j = {0};
    for (size_t i = 0; i < NETWORK_INPUTS; i++) {
        bool has_batch_axis = false;
        size_t count = 0;
        j.inputs[i] = read_input(files[i], &network_inputs[i], &has_batch_axis, &count);
        if (i > 0 && (has_batch_axis != j.has_batch_axis || count != j.count)) {
            fail(files[i], "holds %zu images%s, but %s holds %zu%s", count,
                 has_batch_axis ? "" : " (without batch axis)", files[0], j.count,
                 j.has_batch_axis ? "" : " (without batch axis)");
        }
        j.has_batch_axis = has_batch_axis;
        j.count = count;
    }
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++) {
        size_t size = 0;
        if (!size_multiply(j.count, network_outputs[i].size, &size)) fail(files[0], "holds too many images");
        j.outputs[i] = memory_array(size, sizeof **j.outputs);
    }
    return j;
}

/* The packed parameters: those inside the program, or packed from the file into *owned. */
static const void *load_params(const char *weights, void *workspace, void **owned) {
    *owned = NULL;
    if (weights == NULL) return NETWORK_PARAMS;
    float *values = safetensors_read(weights, network_weights, NETWORK_WEIGHTS);
    *owned = memory_aligned(NETWORK_PARAM_BYTES);
    memset(*owned, 0, NETWORK_PARAM_BYTES);
    NETWORK_PACK(values, *owned, workspace);
    free(values);
    return *owned;
}

/* Runs the network over all images, a batch at a time; the last batch may have fewer images. */
static void run_job(job *j, const void *params, void *workspace, cnnc_pool *pool) {
    float *in[NETWORK_INPUTS], *out[NETWORK_OUTPUTS];
    for (size_t i = 0; i < NETWORK_INPUTS; i++)
        in[i] = memory_array(NETWORK_BATCH * network_inputs[i].size, sizeof **in);
    for (size_t first = 0; first < j->count; first += NETWORK_BATCH) {
        size_t rows = j->count - first < NETWORK_BATCH ? j->count - first : NETWORK_BATCH;
        for (size_t i = 0; i < NETWORK_INPUTS; i++) {
            size_t size = network_inputs[i].size;
            array_floats(&j->inputs[i], first * size, rows * size, network_scalings[i], in[i]);
        }
        for (size_t i = 0; i < NETWORK_OUTPUTS; i++) out[i] = j->outputs[i] + first * network_outputs[i].size;
        network_run((int64_t)rows, (const float *const *)in, out, params, workspace, pool);
    }
    for (size_t i = 0; i < NETWORK_INPUTS; i++) free(in[i]);
}

static void write_outputs(const job *j, const char *const *files) {
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++) {
        const tensor *t = &network_outputs[i];
        size_t shape[TENSOR_MAX_RANK + 1] = {j->count};
        memcpy(shape + 1, t->shape, sizeof t->shape);
        npy_write(files[i], j->outputs[i], j->has_batch_axis ? shape : t->shape, t->rank + j->has_batch_axis);
    }
}

static void free_job(job *j) {
    for (size_t i = 0; i < NETWORK_INPUTS; i++) array_free(&j->inputs[i]);
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++) free(j->outputs[i]);
}

static void run_program(const char *const *files, const char *weights, int threads) {
    if (!NETWORK_SUPPORTED())
        fail(NULL, "this processor lacks instructions of %s, its target", NETWORK_TARGET);
    void *owned = NULL;
    void *workspace = memory_aligned(NETWORK_WORKSPACE_BYTES);
    const void *params = load_params(weights, workspace, &owned);
    job j = read_job(files);
    cnnc_pool *pool = threads > 1 ? NETWORK_POOL_CREATE(threads) : NULL;
    if (threads > 1 && pool == NULL) fail(NULL, "cannot start %d threads", threads);
    run_job(&j, params, workspace, pool);
    if (pool != NULL) NETWORK_POOL_DESTROY(pool);
    free(workspace);
    write_outputs(&j, files + NETWORK_INPUTS);
    free_job(&j);
    free(owned);
}

int main(int argc, char **argv) {
    error_program(argv[0]);
    if (args_want_help(argc, argv)) {
        print_help();
        return EXIT_SUCCESS;
    }
    option options[OPTION_COUNT] = {[OPTION_THREADS] = {"--threads", NULL},
                                    [OPTION_WEIGHTS] = {"--weights", NULL}};
    const char *files[FILE_COUNT];
    args_parse(argc, argv, options, OPTION_COUNT, files, FILE_COUNT, NETWORK_FILES);
    int threads = (int)args_integer(&options[OPTION_THREADS], 1, 1, MAX_THREADS);
    const char *weights = options[OPTION_WEIGHTS].value;
    if (!NETWORK_HAS_PARAMS && weights == NULL)
        fail_usage("--weights is needed: the weights are not inside this program");
    run_program(files, weights, threads);
    return EXIT_SUCCESS;
}
