#include "engine/calibration/key_fit_run.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "engine/calibration/layer_weights.h"
#include "engine/parallel/rank_group.h"
#include "engine/parallel/thread_communicator.h"

namespace tessera {
namespace {

constexpr int64_t kMaxSampleBytes = int64_t{1} << 30;
constexpr int64_t kMaxWindows = 40;

class KeyFitRun final {
 public:
  KeyFitRun(const KeyFitJob& job, TplaCalibration& calibration)
      : job_(job),
        config_(job.model.parts.config),
        calibration_(calibration),
        threads_(make_thread_communicators(job.model.num_threads, job.model.num_threads)),
        results_(calibration.layers.size()) {}

  Result<std::vector<std::optional<KeyFitResult>>> run() {
    const auto num_layers = static_cast<int64_t>(results_.size());
    const auto num_windows = std::min(kMaxWindows, static_cast<int64_t>(job_.windows.size()));
    const auto length = static_cast<int64_t>(job_.windows.front().size());
    const int64_t at_once =
        std::max<int64_t>(1, kMaxSampleBytes / (num_windows * sample_bytes(config_, length)));
    for (int64_t begin = 0; begin < num_layers; begin += at_once) {
      const int64_t count = std::min(at_once, num_layers - begin);
      // Of a layer, running the model is half of the work, as far as a progress bar can tell.
      const auto advance = [&](double share) {
        const double done = static_cast<double>(begin) + share * static_cast<double>(count);
        job_.progress(static_cast<int64_t>(1000.0 * done), 1000 * num_layers);
      };
      TESSERA_TRY(
          const auto samples,
          gather_samples(job_.model,
                         {.windows = job_.windows,
                          .max_windows = num_windows,
                          .first_layer = begin,
                          .num_layers = count,
                          .progress = [&](int64_t done, int64_t total) {
                            advance(0.5 * static_cast<double>(done) / static_cast<double>(total));
                          }}));
      TESSERA_RETURN_IF_ERROR(fit(begin, samples));
      advance(1.0);
    }
    return std::move(results_);
  }

 private:
  Status fit(int64_t begin, const std::vector<std::vector<AttentionSample>>& samples) {
    TESSERA_TRY(const auto source, job_.model.open_source());
    std::vector<LayerWeightsOfHeads> weights;
    for (size_t i = 0; i < samples.size(); ++i) {
      weights.push_back(read_head_weights(config_, *source, begin + static_cast<int64_t>(i)));
    }
    std::atomic<size_t> next = 0;
    threads_.run_blocking([&](int) {
      for (size_t i = next++; i < samples.size(); i = next++) {
        fit_layer(static_cast<size_t>(begin) + i, weights[i], samples[i]);
      }
    });
    return Status::ok();
  }

  void fit_layer(size_t index,
                 const LayerWeightsOfHeads& weights,
                 const std::vector<AttentionSample>& samples) {
    TplaCalibration::Layer& layer = calibration_.layers[index];
    if (layer.num_shared < config_.kv_lora_rank) {
      results_[index] = fit_keys(
          config_,
          weights,
          samples,
          {.num_slices = calibration_.num_slices, .window = calibration_.window, .seed = index},
          layer);
    }
  }

  const KeyFitJob& job_;
  const ModelConfig& config_;
  TplaCalibration& calibration_;
  RankGroup threads_;
  std::vector<std::optional<KeyFitResult>> results_;
};

}  // namespace

Result<std::vector<std::optional<KeyFitResult>>> fit_calibration(const KeyFitJob& job,
                                                                 TplaCalibration& calibration) {
  return KeyFitRun(job, calibration).run();
}

}  // namespace tessera
