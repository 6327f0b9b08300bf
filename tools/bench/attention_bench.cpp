// Decode attention of the CUDA backend, shape by shape, beside its bounds (bytes at the rate of a
// kernel that only reads, operations at the rate of a large product, both measured in the same run)
// and beside a baseline's times; with --check also beside double precision. Medians over CUDA
// events of replayed graphs. See tools/README.md for the file of times.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/bench/attention_case.h"
#include "tools/bench/gpu_bench.h"

namespace tessera::bench {
namespace {

constexpr int64_t kFullWidth = 512;

struct Load {
  int64_t batch, context;
};
constexpr std::array<Load, 6> kLoads = {
    {{1, 32768}, {8, 32768}, {32, 32768}, {64, 32768}, {64, 4096}, {128, 1024}}};
constexpr std::array<int64_t, 8> kLengths = {
    1, 63, 64, 65, 1000, 4096, 32768, AttentionShape::kMixed};

using Shapes = std::vector<AttentionShape>;

void add_loads(Shapes& shapes, const AttentionShape& shape) {
  for (const Load& load : kLoads) {
    AttentionShape& added = shapes.emplace_back(shape);
    added.batch = load.batch;
    added.context = load.context;
  }
}

void add_lengths(Shapes& shapes, const AttentionShape& shape) {
  for (const int64_t context : kLengths) {
    AttentionShape& added = shapes.emplace_back(shape);
    added.batch = 8;
    added.context = context;
  }
}

/// Slices of a latent of 512 columns on each of a tensor-parallel group's ranks, all heads; the
/// baseline has the whole latent and its share of the heads.
AttentionShape slice_shape(const char* name, int64_t heads, int64_t width, int64_t num_ranks) {
  return {.name = name,
          .heads = heads,
          .width = width,
          .baseline_heads = heads / num_ranks,
          .baseline_width = kFullWidth};
}

AttentionShape whole_shape(int64_t heads) {
  return {.name = "whole", .heads = heads, .width = kFullWidth};
}

const std::map<std::string, void (*)(Shapes&)>& presets() {
  static const std::map<std::string, void (*)(Shapes&)> all = {
      {"k2-tp2", [](Shapes& s) { add_loads(s, slice_shape("k2-tp2", 64, 256, 2)); }},
      {"v3-tp2", [](Shapes& s) { add_loads(s, slice_shape("v3-tp2", 128, 256, 2)); }},
      {"shared",
       [](Shapes& s) {
         add_loads(s, slice_shape("k2-tp2-shared", 64, 320, 2));
         add_loads(s, slice_shape("v3-tp2-shared", 128, 320, 2));
       }},
      {"tp4",
       [](Shapes& s) {
         add_loads(s, slice_shape("k2-tp4", 64, 128, 4));
         add_loads(s, slice_shape("v3-tp4", 128, 128, 4));
       }},
      {"tp8",
       [](Shapes& s) {
         add_loads(s, slice_shape("k2-tp8", 64, 64, 8));
         add_loads(s, slice_shape("v3-tp8", 128, 64, 8));
       }},
      {"whole",
       [](Shapes& s) {
         for (const int64_t heads : {16, 32, 64, 128}) {
           add_loads(s, whole_shape(heads));
         }
       }},
      {"window",
       [](Shapes& s) {
         for (const int64_t heads : {64, 128}) {
           AttentionShape shape = slice_shape("window", heads, 256, 2);
           shape.window = {0, 16};
           add_loads(s, shape);
         }
       }},
      {"float8",
       [](Shapes& s) {
         for (const int64_t heads : {64, 128}) {
           AttentionShape shape = slice_shape("float8", heads, 256, 2);
           shape.float8 = 1;
           add_loads(s, shape);
         }
       }},
      {"tokens",
       [](Shapes& s) {
         AttentionShape shape = slice_shape("tokens", 64, 256, 2);
         shape.tokens = 2;
         add_loads(s, shape);
       }},
      {"lengths",
       [](Shapes& s) {
         add_lengths(s, slice_shape("lengths", 64, 256, 2));
         add_lengths(s, slice_shape("lengths", 128, 256, 2));
         add_lengths(s, slice_shape("lengths", 64, 320, 2));
         add_lengths(s, whole_shape(16));
         add_lengths(s, whole_shape(128));
         AttentionShape shape = slice_shape("lengths", 64, 256, 2);
         shape.window = {4, 16};
         add_lengths(s, shape);
       }},
  };
  return all;
}

std::optional<int64_t> number_of(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_ok = error == std::errc() && end == text.data() + text.size() && value >= 0;
  return is_ok ? std::optional(value) : std::nullopt;
}

/// Of "heads=64,width=256,...". Prints why and ends the process otherwise.
AttentionShape parse_shape(const std::string& text) {
  AttentionShape shape{.name = "own"};
  const std::map<std::string, int64_t*> fields = {{"heads", &shape.heads},
                                                  {"width", &shape.width},
                                                  {"rope", &shape.rope},
                                                  {"batch", &shape.batch},
                                                  {"context", &shape.context},
                                                  {"tokens", &shape.tokens},
                                                  {"first", &shape.window.num_first},
                                                  {"last", &shape.window.num_last},
                                                  {"float8", &shape.float8},
                                                  {"baseline_heads", &shape.baseline_heads},
                                                  {"baseline_width", &shape.baseline_width}};
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t equals = std::min(part.find('='), part.size());
    const auto field = fields.find(part.substr(0, equals));
    const auto value = number_of(part.substr(std::min(equals + 1, part.size())));
    if (field == fields.end() || !value) {
      std::fprintf(stderr, "attention_bench: what is \"%s\" in a shape?\n", part.c_str());
      std::exit(2);
    }
    *field->second = *value;
  }
  return shape;
}

/// Times by (heads, width, batch, context).
using Times = std::map<std::array<int64_t, 4>, double>;

std::array<int64_t, 4> baseline_key(const AttentionShape& shape) {
  return {shape.baseline_heads > 0 ? shape.baseline_heads : shape.heads,
          shape.baseline_width > 0 ? shape.baseline_width : shape.width,
          shape.batch,
          shape.context};
}

/// Lines "heads,width,batch,context,us"; others are skipped.
Times read_times(const std::string& path) {
  Times times;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    long long key[4] = {};
    double us = 0.0;
    if (std::sscanf(  // NOLINT(cert-err34-c): the count says it
            line.c_str(),
            "%lld,%lld,%lld,%lld,%lf",
            &key[0],
            &key[1],
            &key[2],
            &key[3],
            &us) == 5) {
      times[{key[0], key[1], key[2], key[3]}] = us;
    }
  }
  if (times.empty()) {
    std::fprintf(stderr, "attention_bench: no times in %s\n", path.c_str());
    std::exit(2);
  }
  return times;
}

struct Options {
  std::vector<std::string> presets;
  std::vector<std::string> shapes;
  std::string baseline;
  std::string csv;
  bool measures_baseline = false;
  bool measures_flash_mla = false;
  bool checks = false;
  bool skips_times = false;
};

/// Measured in the same run.
struct Ceilings {
  double copy = 0.0;  ///< bytes a second
  double read = 0.0;
  double rate = 0.0;  ///< operations a second
};

class AttentionBench final {
 public:
  AttentionBench(GpuBench& bench, const Options& options) : bench_(bench), options_(options) {
    if (!options.baseline.empty()) {
      baseline_ = read_times(options.baseline);
    }
    if (!options.csv.empty()) {
      csv_.open(options.csv);
      csv_ << "# heads,width,batch,context,us of attention_bench on "
           << bench.device().description() << '\n';
    }
  }

  void measure_ceilings() {
    ceilings_ = {bench_.copy_bandwidth(), bench_.read_bandwidth(), bench_.product_rate()};
    std::printf("%s\ncopy %.0f GB/s, read %.0f GB/s, bfloat16 product %.0f TFLOP/s\n",
                bench_.device().description().c_str(),
                ceilings_.copy / 1e9,
                ceilings_.read / 1e9,
                ceilings_.rate / 1e12);
    std::printf("%-14s %5s %5s %5s %7s %6s %7s %9s %6s %7s %9s %6s %6s %6s %6s %9s %7s\n",
                "shape",
                "heads",
                "width",
                "batch",
                "context",
                "tokens",
                "window",
                "us",
                "GB/s",
                "TFLOP/s",
                "bound us",
                "ratio",
                "read%",
                "copy%",
                "rate%",
                "base us",
                "faster");
  }

  /// Whether the results were right, if they were asked for.
  bool report(const AttentionShape& shape) {
    std::printf(
        "%-14s %5lld %5lld %5lld %7s %6lld %3lld+%-3lld",
        shape.name.c_str(),
        static_cast<long long>(shape.heads),
        static_cast<long long>(shape.width),
        static_cast<long long>(shape.batch),
        shape.context == AttentionShape::kMixed ? "mixed" : std::to_string(shape.context).c_str(),
        static_cast<long long>(shape.tokens),
        static_cast<long long>(shape.window.num_first),
        static_cast<long long>(shape.window.num_last));
    if (!options_.skips_times) {
      report_times(shape);
    }
    bool is_ok = !options_.checks || report_error(shape);
    if (options_.checks && options_.measures_flash_mla && has_flash_mla_times(shape)) {
      std::printf("; baseline:");
      is_ok = report_error(baseline_shape(shape), DecodeWay::kFlashMla) && is_ok;
    }
    std::printf("\n");
    std::fflush(stdout);
    return is_ok;
  }

 private:
  [[nodiscard]] std::unique_ptr<AttentionCase> make_case(const AttentionShape& shape,
                                                         DecodeWay way = DecodeWay::kOps) {
    // Kernels that ask the L2 cache to drop what they have read leave a part of the run before
    // there: 50 MiB are little of this.
    constexpr double kCacheBytes = 1e9;
    const double copies = std::ceil(kCacheBytes / std::max(1.0, shape.cache_bytes()));
    return std::make_unique<AttentionCase>(
        bench_, shape, static_cast<int64_t>(std::min<double>(copies, GpuBench::kRuns)), way);
  }

  /// Medians, in turns.
  struct Measured {
    double us = 0.0;
    double baseline_us = 0.0;  ///< 0: not known
  };

  Measured measure(const AttentionShape& shape) {
    const auto own = make_case(shape);
    const auto known = baseline_.find(baseline_key(shape));
    if (known != baseline_.end() || !measures_baseline(shape)) {
      return {bench_.median_us([&](int i) { own->run(i); }),
              known != baseline_.end() ? known->second : 0.0};
    }
    const auto other =
        make_case(baseline_shape(shape),
                  options_.measures_flash_mla ? DecodeWay::kFlashMla : DecodeWay::kOps);
    const std::vector<double> medians =
        bench_.medians_us({[&](int i) { own->run(i); }, [&](int i) { other->run(i); }});
    return {medians[0], medians[1]};
  }

  [[nodiscard]] bool measures_baseline(const AttentionShape& shape) const {
    return options_.measures_flash_mla ? has_flash_mla_times(shape) : options_.measures_baseline;
  }

  void report_times(const AttentionShape& shape) {
    const auto [us, baseline] = measure(shape);
    const double bytes = shape.cache_bytes();
    const double operations = shape.operations();
    const double bound = std::max(bytes / ceilings_.read, operations / ceilings_.rate) * 1e6;
    std::printf(" %9.1f %6.0f %7.0f %9.1f %6.2f %6.1f %6.1f %6.1f",
                us,
                bytes / us / 1e3,
                operations / us / 1e6,
                bound,
                us / bound,
                bytes / us * 1e8 / ceilings_.read,
                bytes / us * 1e8 / ceilings_.copy,
                operations / us * 1e8 / ceilings_.rate);
    if (baseline > 0.0) {
      std::printf(" %9.1f %6.2fx", baseline, baseline / us);
    }
    csv_ << shape.heads << ',' << shape.width << ',' << shape.batch << ',' << shape.context << ','
         << us << '\n';
  }

  static AttentionShape baseline_shape(const AttentionShape& shape) {
    const auto key = baseline_key(shape);
    AttentionShape baseline = shape;
    baseline.heads = key[0];
    baseline.width = key[1];
    baseline.window = {};
    baseline.float8 = 0;
    return baseline;
  }

  static bool has_flash_mla_times(const AttentionShape& shape) {
    return baseline_shape(shape).width == kFullWidth && shape.rope == 64 && shape.tokens == 1;
  }

  bool report_error(const AttentionShape& shape, DecodeWay way = DecodeWay::kOps) {
    AttentionCase attention(bench_, shape, 1, way);
    const AttentionError error = attention.error_blocking();
    std::printf("  error %.1e, log-sum-exp %.1e%s",
                error.values,
                error.log_sum_exp,
                error.is_ok() ? "" : " WRONG");
    return error.is_ok();
  }

  GpuBench& bench_;
  const Options& options_;
  Times baseline_;
  std::ofstream csv_;
  Ceilings ceilings_;
};

int run(const Options& options) {
  Shapes shapes;
  for (const std::string& name : options.presets) {
    presets().at(name)(shapes);
  }
  for (const std::string& text : options.shapes) {
    shapes.push_back(parse_shape(text));
  }
  const uint64_t seed = std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  GpuBench gpu(seed);
  AttentionBench bench(gpu, options);
  if (!options.skips_times) {
    bench.measure_ceilings();
  }
  bool is_ok = true;
  for (const AttentionShape& shape : shapes) {
    is_ok = bench.report(shape) && is_ok;
  }
  return is_ok ? 0 : 1;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  namespace bench = tessera::bench;
  CLI::App app("Decode attention beside its bounds, a baseline and double precision");
  bench::Options options;
  std::vector<std::string> names;
  for (const auto& [name, add] : bench::presets()) {
    names.push_back(name);
  }
  app.add_option("--preset", options.presets, "Sets of shapes")->check(CLI::IsMember(names));
  app.add_option("--shape",
                 options.shapes,
                 "heads=,width=,rope=,batch=,context= (0: mixed),tokens=,first=,last=,"
                 "float8=,baseline_heads=,baseline_width=");
  app.add_option("--baseline", options.baseline, "File of a baseline's times")
      ->check(CLI::ExistingFile);
  app.add_flag("--measure-baseline",
               options.measures_baseline,
               "Where the file has no time: this backend's own at the baseline's shape");
  app.add_flag("--flash-mla",
               options.measures_flash_mla,
               "Where the file has no time: FlashMLA at the baseline's shape");
  app.add_option("--csv", options.csv, "File to write the times to");
  app.add_flag("--check", options.checks, "Compare with double precision");
  app.add_flag("--no-times", options.skips_times, "Only check");
  CLI11_PARSE(app, argc, argv);
  if (options.measures_flash_mla && !bench::has_flash_mla()) {
    std::fprintf(stderr, "attention_bench: --flash-mla needs a build with TESSERA_FLASH_MLA\n");
    return 2;
  }
  try {
    return bench::run(options);
  } catch (const tessera::DeviceError& error) {
    std::fprintf(stderr, "attention_bench: %s\n", error.what());
    return 1;
  }
}
