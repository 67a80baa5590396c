"""Files on local disks and in object stores: listing, reading at random, publishing create-only; allowed roots."""
