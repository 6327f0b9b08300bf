#include "engine/quality/decode_mode.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <system_error>

#include "engine/base/text.h"

namespace tessera {
namespace {

constexpr int64_t kMaxRanks = 64;
constexpr int64_t kMaxTokens = int64_t{1} << 24;

/// Removes and returns what stands before the first `separator`, or everything.
std::string_view take(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return head;
}

template <typename Number>
std::optional<Number> parse_whole(std::string_view text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && rest == end ? std::optional(value) : std::nullopt;
}

Result<int64_t> parse_count(std::string_view text, std::string_view what, int64_t maximum) {
  const auto value = parse_whole<int64_t>(text);
  if (!value.has_value() || *value < 1 || *value > maximum) {
    return invalid_argument(
        str_cat("\"", text, "\" is no number of ", what, " from 1 to ", maximum));
  }
  return *value;
}

/// "16" or "4+16"; nothing when it is anything else.
std::optional<kernels::LatentWindow> parse_window(std::string_view text) {
  const bool has_first = text.find('+') != std::string_view::npos;
  const auto first = has_first ? parse_whole<int64_t>(take(text, '+')) : 0;
  const auto last = parse_whole<int64_t>(text);
  if (!first || !last) {
    return std::nullopt;
  }
  return kernels::LatentWindow{.num_first = *first, .num_last = *last};
}

/// Removes "@16" from the end; an @ before anything else is part of a path.
std::optional<kernels::LatentWindow> take_window(std::string_view& text) {
  const size_t at = text.rfind('@');
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  const auto window = parse_window(text.substr(at + 1));
  if (window) {
    text = text.substr(0, at);
  }
  return window;
}

Result<DecodeMode> parse_tpla(std::string_view rest) {
  DecodeMode mode;
  mode.window = take_window(rest);
  mode.sharding.attention = AttentionSharding::kTpla;
  std::string_view counts = take(rest, ':');
  TESSERA_TRY(mode.sharding.num_slices, parse_count(take(counts, '/'), "slices", kMaxRanks));
  mode.sharding.num_ranks = mode.sharding.num_slices;
  if (!counts.empty()) {
    TESSERA_TRY(mode.sharding.num_ranks, parse_count(counts, "ranks", kMaxRanks));
  }
  mode.basis = rest.empty() ? "auto" : std::string(rest);
  return mode;
}

Result<DecodeMode> parse_fields(std::string_view text) {
  std::string_view rest = text;
  const std::string_view name = take(rest, ':');
  if (name == "tpla") {
    return parse_tpla(rest);
  }
  DecodeMode mode;
  if (name == "dcp") {
    mode.sharding.attention = AttentionSharding::kDcp;
  } else if (name != "replicated") {
    return invalid_argument(str_cat("\"", name, "\" is none of [replicated, dcp, tpla]"));
  }
  TESSERA_TRY(mode.sharding.num_ranks, parse_count(rest, "ranks", kMaxRanks));
  return mode;
}

Result<QualityLengths> parse_lengths(std::string_view text) {
  QualityLengths lengths;
  std::string_view rest = text;
  TESSERA_TRY(lengths.prefill_tokens, parse_count(take(rest, ':'), "prompt tokens", kMaxTokens));
  TESSERA_TRY(lengths.decode_tokens, parse_count(rest, "decoded tokens", kMaxTokens));
  return lengths;
}

/// Applies `parse` to each part between commas.
template <typename T>
Result<std::vector<T>> parse_list(const std::vector<std::string>& texts,
                                  Result<T> (*parse)(std::string_view)) {
  std::string joined;
  for (const std::string& text : texts) {
    joined += (joined.empty() ? "" : ",") + text;
  }
  std::vector<T> values;
  std::string_view rest = joined;
  while (!rest.empty()) {
    const std::string_view item = take(rest, ',');
    auto value = parse(item);
    if (!value.is_ok()) {
      return value.status().with_context(std::string(item));
    }
    values.push_back(std::move(value).value());
  }
  return values;
}

}  // namespace

std::string DecodeMode::label() const {
  const size_t path = text.find(basis);
  const size_t folder = basis.rfind('/');
  if (path == std::string::npos || folder == std::string::npos) {
    return text;
  }
  return text.substr(0, path) + text.substr(path + folder + 1);
}

Result<DecodeMode> parse_decode_mode(std::string_view text) {
  TESSERA_TRY(DecodeMode mode, parse_fields(text));
  mode.text = text;
  return mode;
}

Result<std::vector<DecodeMode>> parse_decode_modes(const std::vector<std::string>& texts) {
  TESSERA_TRY(auto modes, parse_list<DecodeMode>(texts, parse_decode_mode));
  for (auto mode = modes.begin(); mode != modes.end(); ++mode) {
    if (std::any_of(modes.begin(), mode, [&](const DecodeMode& other) {
          return other.text == mode->text;
        })) {
      return invalid_argument(str_cat(mode->text, " is given twice"));
    }
  }
  return modes;
}

Result<std::vector<QualityLengths>> parse_quality_lengths(const std::vector<std::string>& texts) {
  return parse_list<QualityLengths>(texts, parse_lengths);
}

Status settle_basis(const ModelConfig& config, const std::string& model_folder, DecodeMode& mode) {
  if (mode.basis != "auto") {
    return Status::ok();
  }
  mode.basis = "hadamard";
  const std::string path = model_folder + "/" + kTplaCalibrationFile;
  std::error_code error;
  if (mode.sharding.num_slices > 1 && std::filesystem::is_regular_file(path, error)) {
    TESSERA_TRY(const TplaTransform transform, TplaTransform::load(path, config));
    if (transform.num_slices() == mode.sharding.num_slices) {
      mode.basis = path;
    }
  }
  // Before the window.
  mode.text.insert(std::min(mode.window ? mode.text.rfind('@') : mode.text.npos, mode.text.size()),
                   ":" + mode.basis);
  return Status::ok();
}

Result<ModeSetup> resolve_mode(const DecodeMode& mode, const ModelConfig& config) {
  ModeSetup setup{.sharding = mode.sharding, .transform = {}};
  if (mode.basis == "hadamard" || mode.basis == "auto") {
    TESSERA_TRY(setup.transform, TplaTransform::hadamard(config, TplaTransform::kHadamardSeed));
  } else if (mode.basis != "none") {
    TESSERA_TRY(setup.transform, TplaTransform::load(mode.basis, config));
    if (setup.transform.num_slices() != mode.sharding.num_slices) {
      return invalid_argument(str_cat("the calibration is for ",
                                      setup.transform.num_slices(),
                                      " slices, the mode has ",
                                      mode.sharding.num_slices));
    }
    setup.sharding.shared_columns = setup.transform.shared_columns();
    setup.sharding.window = setup.transform.window();
  }
  if (mode.window) {
    setup.sharding.window = *mode.window;
  }
  TESSERA_RETURN_IF_ERROR(validate_sharding(config, setup.sharding));
  return setup;
}

}  // namespace tessera
