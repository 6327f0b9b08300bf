#include "server/cli/option_sources.h"

#include <algorithm>
#include <vector>

#include "engine/base/json_reader.h"
#include "engine/base/text.h"
#include "server/cli/option_table.h"

namespace tessera::cli {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

std::optional<std::vector<std::string>> one_text(const std::optional<std::string>& value) {
  return value.has_value() ? std::optional(std::vector<std::string>{*value}) : std::nullopt;
}

/// The key's value as texts; nullopt when it is absent or of the wrong type (a fault is recorded).
std::optional<std::vector<std::string>> read_texts(JsonReader& file, const OptionSpec& spec) {
  const bool is_string = file.get_json(spec.name).value_or("").starts_with('"');
  if (std::holds_alternative<std::vector<std::string> Options::*>(spec.field)) {
    return is_string ? one_text(file.get_string(spec.name)) : file.get_string_list(spec.name);
  }
  if (std::holds_alternative<bool Options::*>(spec.field)) {
    const auto value = file.get_bool(spec.name);
    return value.has_value() ? one_text(*value ? "true" : "false") : std::nullopt;
  }
  const bool is_number = std::holds_alternative<int64_t Options::*>(spec.field);
  const bool accepts_text = spec.unit == OptionUnit::kBytes || spec.is_auto_when_zero;
  if (is_number && !(is_string && accepts_text)) {
    const auto value = file.get_int(spec.name);
    return value.has_value() ? one_text(std::to_string(*value)) : std::nullopt;
  }
  return one_text(file.get_string(spec.name));
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

Status apply_config_file(const std::string& path, ResolvedOptions& resolved) {
  TESSERA_TRY(JsonReader file, JsonReader::load(path, kMaxConfigBytes, /*allow_comments=*/true));
  std::vector<std::string> known;
  for (const OptionSpec& spec : option_table(resolved.role)) {
    known.push_back(spec.name);
    const auto values = read_texts(file, spec);
    if (!values.has_value()) {
      continue;
    }
    const Status status = set_option(spec, *values, resolved.options);
    if (!status.is_ok()) {
      file.add_fault(spec.name, status.message());
    }
    resolved.sources[spec.name] = "file";
  }
  file.reject_unknown_keys(known);
  return file.faults().with_context(path);
}

Status apply_environment(const Environment& environment, ResolvedOptions& resolved) {
  std::string faults;
  for (const OptionSpec& spec : option_table(resolved.role)) {
    const std::string name = environment_name(spec);
    const std::string value = environment(name).value_or("");
    if (value.empty()) {
      continue;
    }
    const bool is_list = std::holds_alternative<std::vector<std::string> Options::*>(spec.field);
    const auto values = is_list ? split_commas(value) : std::vector<std::string>{value};
    const Status status = set_option(spec, values, resolved.options);
    if (!status.is_ok()) {
      faults += str_cat(faults.empty() ? "" : "\n", name, ": ", status.message());
    }
    resolved.sources[spec.name] = "environment";
  }
  return faults.empty() ? Status::ok() : invalid_argument(faults);
}

std::string render_options(const ResolvedOptions& resolved) {
  std::string text = "{\n";
  const auto& table = option_table(resolved.role);
  for (const OptionSpec& spec : table) {
    const auto source = resolved.sources.find(spec.name);
    text += str_cat("  \"",
                    spec.name,
                    "\": ",
                    option_json(spec, resolved.options),
                    &spec == &table.back() ? "" : ",",
                    "  // ",
                    source == resolved.sources.end() ? "default" : source->second,
                    "\n");
  }
  return text + "}\n";
}

}  // namespace tessera::cli
