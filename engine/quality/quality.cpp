#include "engine/quality/quality.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

using Row = MeasuredModel::Row;

// Rows of the first steps along a greedy continuation, each twice the last: most modes leave it
// early, and what comes after is not looked at.
constexpr int64_t kFirstGreedyRows = 16;

std::span<const int32_t> part(std::span<const int32_t> ids, int64_t begin, int64_t count) {
  return ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
}

std::span<const float> row_of(std::span<const float> logits, int64_t row, int64_t width) {
  return logits.subspan(static_cast<size_t>(row * width), static_cast<size_t>(width));
}

Status check_lengths(std::span<const TextWindow> windows,
                     const QualityLengths& lengths,
                     const MeasuredModel& model) {
  if (lengths.prefill_tokens < 1 || lengths.decode_tokens < 1) {
    return invalid_argument(str_cat(
        "lengths ", lengths.prefill_tokens, ":", lengths.decode_tokens, ": both at least 1"));
  }
  if (lengths.window_tokens() - 1 > model.max_length()) {
    return invalid_argument(str_cat(
        lengths.window_tokens() - 1, " tokens, sequences have at most ", model.max_length()));
  }
  for (const TextWindow& window : windows) {
    if (static_cast<int64_t>(window.size()) < lengths.window_tokens()) {
      return invalid_argument(str_cat(
          "a window of ", window.size(), " tokens, ", lengths.window_tokens(), " are needed"));
    }
  }
  return Status::ok();
}

/// In chunks: only for a model whose ranks do not share the attention.
void prefill_exact(MeasuredModel& exact, int64_t sequence, std::span<const int32_t> ids) {
  const auto count = static_cast<int64_t>(ids.size());
  for (int64_t begin = 0; begin < count; begin += exact.max_prompt()) {
    exact.prefill_blocking(
        sequence, begin, part(ids, begin, std::min(exact.max_prompt(), count - begin)));
  }
}

void make_rows(int64_t begin, std::span<const int32_t> ids, std::vector<Row>& rows) {
  rows.clear();
  for (size_t i = 0; i < ids.size(); ++i) {
    rows.push_back({.sequence = 0, .position = begin + static_cast<int64_t>(i), .id = ids[i]});
  }
}

/// Rows from the first on whose top token is that of `ids`.
int64_t count_same_tops(std::span<const float> logits,
                        std::span<const int32_t> ids,
                        int64_t vocab_size) {
  int64_t row = 0;
  for (const int32_t id : ids) {
    if (top_id(row_of(logits, row, vocab_size)) != id) {
      break;
    }
    ++row;
  }
  return row;
}

/// One task's run over its windows, one at a time, all in sequence 0 of every model.
class Measurement final {
 public:
  Measurement(const QualityTask& task, const QualityProgress& progress)
      : task_(task),
        progress_(progress),
        total_(static_cast<int64_t>(task.windows.size()) * task.lengths.decode_tokens) {
    for (const MeasuredModel* mode : task.modes) {
      results_.push_back({.lengths = task.lengths,
                          .divergences = {},
                          .agreement_lengths = {},
                          .bytes_per_token = mode->bytes_per_token(),
                          .exact_bytes_per_token = task.exact.bytes_per_token()});
    }
  }

  [[nodiscard]] std::vector<Quality> run() {
    for (size_t i = 0; i < task_.windows.size(); ++i) {
      teacher_forced(task_.windows[i]);
      for (size_t mode = 0; task_.greedy != nullptr && mode < results_.size(); ++mode) {
        results_[mode].agreement_lengths.push_back(
            agreement(*task_.modes[mode], (*task_.greedy)[i]));
      }
    }
    return std::move(results_);
  }

 private:
  void teacher_forced(std::span<const int32_t> window) {
    const auto [num_prompt, num_decode] = task_.lengths;
    const std::span<const int32_t> prompt = part(window, 0, num_prompt);
    prefill_exact(task_.exact, 0, prompt);
    int64_t step = task_.exact.max_rows();
    for (size_t mode = 0; mode < results_.size(); ++mode) {
      task_.modes[mode]->prefill_blocking(0, 0, prompt);
      step = std::min(step, task_.modes[mode]->max_rows());
      results_[mode].divergences.emplace_back(static_cast<size_t>(num_decode));
    }
    for (int64_t done = 0; done < num_decode; done += step) {
      const int64_t count = std::min(step, num_decode - done);
      compare_step(window, done, count);
      num_done_ += count;
      progress_(num_done_, total_);
    }
  }

  void compare_step(std::span<const int32_t> window, int64_t done, int64_t count) {
    const int64_t begin = task_.lengths.prefill_tokens + done;
    const std::span<const int32_t> ids = part(window, begin, count);
    const auto exact = task_.exact.prefill_logits_blocking(0, begin, ids);
    make_rows(begin, ids, rows_);
    for (size_t mode = 0; mode < results_.size(); ++mode) {
      compare_rows_blocking(exact,
                            task_.modes[mode]->decode_blocking(rows_),
                            part(window, begin + 1, count),
                            std::span(results_[mode].divergences.back())
                                .subspan(static_cast<size_t>(done), static_cast<size_t>(count)),
                            task_.threads);
    }
  }

  /// A mode that decodes freely agrees with the exact continuation up to its first other token, and
  /// until then has decoded just that continuation: so that is what it is run over, many tokens a
  /// step. The prompt is cached.
  int64_t agreement(MeasuredModel& mode, std::span<const int32_t> greedy) {
    const auto [num_prompt, num_decode] = task_.lengths;
    int64_t step = kFirstGreedyRows;
    for (int64_t done = 0; done < num_decode;) {
      const int64_t count = std::min({step, mode.max_rows(), num_decode - done});
      make_rows(num_prompt + done, part(greedy, done, count), rows_);
      const int64_t num_same = count_same_tops(
          mode.decode_blocking(rows_), part(greedy, done + 1, count), mode.vocab_size());
      done += num_same;
      if (num_same < count) {
        return done;
      }
      step *= 2;
    }
    return num_decode;
  }

  const QualityTask& task_;
  const QualityProgress& progress_;
  const int64_t total_;
  int64_t num_done_ = 0;
  std::vector<Quality> results_;  // by mode
  std::vector<Row> rows_;
};

/// Prefills the prompts of some windows and returns the first token of each.
std::vector<int32_t> first_tokens(MeasuredModel& exact,
                                  std::span<const TextWindow> windows,
                                  int64_t num_prompt) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < windows.size(); ++i) {
    const auto sequence = static_cast<int64_t>(i);
    prefill_exact(exact, sequence, part(windows[i], 0, num_prompt - 1));
    const auto logits = exact.prefill_logits_blocking(
        sequence, num_prompt - 1, part(windows[i], num_prompt - 1, 1));
    tokens.push_back(top_id(logits));
  }
  return tokens;
}

/// Decodes the last token of each sequence, which stands at `position`.
void append_top_tokens(MeasuredModel& exact,
                       int64_t position,
                       std::span<std::vector<int32_t>> sequences) {
  std::vector<Row> rows;
  for (const auto& ids : sequences) {
    rows.push_back(
        {.sequence = static_cast<int64_t>(rows.size()), .position = position, .id = ids.back()});
  }
  const auto logits = exact.decode_blocking(rows);
  for (const Row& row : rows) {
    sequences[static_cast<size_t>(row.sequence)].push_back(
        top_id(row_of(logits, row.sequence, exact.vocab_size())));
  }
}

Status check_mode(const QualityTask& task, const MeasuredModel& mode) {
  TESSERA_RETURN_IF_ERROR(check_lengths(task.windows, task.lengths, mode));
  if (task.lengths.prefill_tokens > mode.max_prompt()) {
    return invalid_argument(str_cat("a prompt of ",
                                    task.lengths.prefill_tokens,
                                    " tokens, the mode takes at most ",
                                    mode.max_prompt()));
  }
  return Status::ok();
}

}  // namespace

Result<GreedyTokens> continue_greedily(MeasuredModel& exact,
                                       std::span<const TextWindow> windows,
                                       const QualityLengths& lengths,
                                       const QualityProgress& progress) {
  TESSERA_RETURN_IF_ERROR(check_lengths(windows, lengths, exact));
  const auto num_windows = static_cast<int64_t>(windows.size());
  const int64_t batch = std::min(exact.num_sequences(), exact.max_rows());
  const int64_t total = num_windows * lengths.decode_tokens;
  GreedyTokens tokens;
  int64_t done = 0;
  for (int64_t begin = 0; begin < num_windows; begin += batch) {
    const int64_t count = std::min(batch, num_windows - begin);
    const auto batched = windows.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    for (const int32_t first : first_tokens(exact, batched, lengths.prefill_tokens)) {
      tokens.push_back({first});
    }
    const auto running = std::span(tokens).last(static_cast<size_t>(count));
    for (int64_t step = 0; step < lengths.decode_tokens; ++step) {
      append_top_tokens(exact, lengths.prefill_tokens + step, running);
      done += count;
      progress(done, total);
    }
  }
  return tokens;
}

Result<std::vector<Quality>> measure_quality(const QualityTask& task,
                                             const QualityProgress& progress) {
  TESSERA_RETURN_IF_ERROR(check_lengths(task.windows, task.lengths, task.exact));
  for (const MeasuredModel* mode : task.modes) {
    const Status status = check_mode(task, *mode);
    if (!status.is_ok()) {
      return status;
    }
  }
  TESSERA_CHECK(task.greedy == nullptr || task.greedy->size() == task.windows.size(),
                "continuations of other windows");
  return Measurement(task, progress).run();
}

}  // namespace tessera
