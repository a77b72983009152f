// Files and addresses that more than one command needs.
#pragma once

#include <string>

#include "base/result.h"

namespace waystation::app {

// This program's own file.
std::string own_executable();

// Makes the folder and its parents (mode 0700). kIo says why not.
Status make_folder(const std::string& path);

// Where the server's local workers connect: in the data folder, or, when that path is too long for a
// unix socket, in a folder of its own below /tmp.
Result<std::string> make_socket_path(const std::string& data_dir);

// The first line of a secret's file, without white space at its ends. kIo, kInvalidArgument (empty).
Result<std::string> read_secret(const std::string& path, const std::string& option);

// How a model is called when nobody named it: the file's name without ".gguf".
std::string model_name_of(const std::string& path);

// Where facts about files are kept between starts ($WAYSTATION_CACHE, else ~/.cache/waystation); empty
// when there is no home.
std::string cache_folder();

// Prints the error for a person and gives the exit status.
int fail(const Error& error);

}  // namespace waystation::app
